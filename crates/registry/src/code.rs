//! A module's bytes as they lie in a topic: compressed, in pieces that fit a broker's usual limit of a megabyte.

use bytes::Bytes;
use millrace_core::{Error, Result};
use sha2::{Digest, Sha256};

use crate::manifest::Manifest;

/// The largest piece. With its key it is well below the megabyte that brokers accept by default.
pub(crate) const CHUNK_BYTES_MAX: usize = 512 << 10;

/// The largest module.
pub const MODULE_BYTES_MAX: usize = 64 << 20;

/// Better than the default and still far quicker than compiling the module.
const LEVEL: i32 = 9;

/// The pieces of a module.
///
/// # Errors
/// Reject: it is too large.
pub(crate) fn split(label: &str, wasm: &[u8]) -> Result<Vec<Bytes>> {
    if wasm.len() > MODULE_BYTES_MAX {
        let why = format!("is {} bytes large, at most {MODULE_BYTES_MAX} are kept", wasm.len());
        return Err(Error::reject(format!("module {label}"), why));
    }
    let compressed = zstd::bulk::compress(wasm, LEVEL).map_err(|error| {
        Error::fatal(format!("module {label}"), "cannot be compressed").with_source(error)
    })?;
    let compressed = Bytes::from(compressed);
    let pieces = (0..compressed.len()).step_by(CHUNK_BYTES_MAX);
    Ok(pieces.map(|from| compressed.slice(from..compressed.len().min(from + CHUNK_BYTES_MAX))).collect())
}

/// The module that pieces make, if it is the one that the manifest speaks of.
///
/// # Errors
/// Fatal: it is not.
pub(crate) fn join(manifest: &Manifest, pieces: &[Bytes]) -> Result<Bytes> {
    let damaged =
        || Error::fatal(format!("module {}", manifest.label()), "its code in the registry is damaged");
    let size = usize::try_from(manifest.size_bytes).ok().filter(|size| *size <= MODULE_BYTES_MAX);
    let wasm = zstd::bulk::decompress(&pieces.concat(), size.ok_or_else(damaged)?)
        .map_err(|error| damaged().with_source(error))?;
    if hex::encode(Sha256::digest(&wasm)) != manifest.digest {
        return Err(damaged());
    }
    Ok(wasm.into())
}
