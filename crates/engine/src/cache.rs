//! Compiled modules on disk, so that a start does not wait for the compiler.
//!
//! What is read back is run as machine code: whoever can write the folder can run code as this user. So the folder
//! must belong to this user and be closed to all others, or there is no cache. The digest in each file is against
//! damage (a full disk, a crash in the middle), not against an attacker. The bytes are read, checked and then
//! handed over, and not mapped, so that what was checked is what runs.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use wasmtime::{Engine, Module};

use crate::instrument::FORMAT;

/// What a file begins with: magic and format.
const MAGIC: &[u8; 8] = b"mraot\0\0\x01";
const DIGEST_BYTES: usize = 32;
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// Files kept; the oldest go first.
const FILES_MAX: usize = 64;
const EXTENSION: &str = "aot";

/// The folder, found to be safe.
#[derive(Debug)]
pub(crate) struct CodeCache {
    dir: PathBuf,
    owner: Owner,
}

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error("the cache folder cannot be used: {0}")]
    Io(#[from] io::Error),
    #[error("the cache folder belongs to another user")]
    Owner,
    #[error("the cache folder is open to other users (its mode is {mode:o}, needed is 700)")]
    Mode { mode: u32 },
    #[error("the cache path is not a folder")]
    NotAFolder,
}

impl CodeCache {
    /// Makes the folder if need be and checks it.
    pub(crate) fn open(dir: &Path) -> Result<Self, CacheError> {
        permissions::create(dir)?;
        let folder = fs::symlink_metadata(dir)?;
        if !folder.is_dir() {
            return Err(CacheError::NotAFolder);
        }
        if let Some(mode) = permissions::open_to_others(&folder) {
            return Err(CacheError::Mode { mode });
        }
        // A file just made belongs to this user: so it tells who that is.
        let probe = dir.join(format!(".probe-{:016x}", rand::random::<u64>()));
        let this_user = permissions::create_file(&probe)?.metadata().map(|file| Owner::of(&file));
        fs::remove_file(&probe)?;
        let owner = this_user?;
        if owner != Owner::of(&folder) {
            return Err(CacheError::Owner);
        }
        Ok(CodeCache { dir: dir.to_owned(), owner })
    }

    /// The compiled module, if it is there, whole, and made by this engine.
    pub(crate) fn get(&self, engine: &Engine, sha256: &str) -> Option<Module> {
        let path = self.path(engine, sha256);
        let file = match self.read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%error, "a compiled module in the cache is not used");
                return None;
            }
        };
        let code = unseal(&file)?;
        // SAFETY: the file was written by `put` of this user's process: the folder is closed to others, which was
        // checked when it was opened, as is the file; the digest says that it is whole; wasmtime checks that
        // its own version and configuration made it.
        #[expect(unsafe_code, reason = "compiled code can only be trusted, and is: see the comment")]
        let module = unsafe { Module::deserialize(engine, code) };
        module
            .inspect_err(
                |error| tracing::debug!(%error, "a compiled module in the cache is of another engine"),
            )
            .ok()
    }

    /// Keeps a compiled module. Failing is no fault of the module: it is logged.
    pub(crate) fn put(&self, sha256: &str, module: &Module) {
        let path = self.path(module.engine(), sha256);
        let written = module
            .serialize()
            .map_err(|error| io::Error::other(error.to_string()))
            .and_then(|code| self.write(&path, &seal(&code)));
        if let Err(error) = written.and_then(|()| self.prune()) {
            tracing::warn!(%error, "a compiled module could not be cached");
        }
    }

    fn path(&self, engine: &Engine, sha256: &str) -> PathBuf {
        let engine = HashOfEngine::of(engine);
        self.dir.join(format!("{sha256}-{engine}.{EXTENSION}"))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let safe = metadata.is_file()
            && Owner::of(&metadata) == self.owner
            && permissions::open_to_others(&metadata).is_none();
        if !safe {
            return Err(io::Error::other("it is open to other users, or of another"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Under a name of its own, then renamed: a reader sees all of it or nothing.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let draft = self.dir.join(format!(".draft-{:016x}", rand::random::<u64>()));
        let written = permissions::create_file(&draft)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&draft, path));
        if written.is_err() {
            // What is left of it is of no use; that it may stay is the lesser trouble.
            let _ = fs::remove_file(&draft);
        }
        written
    }

    /// Removes the oldest files beyond [`FILES_MAX`]: each upgrade leaves some that nobody asks for again.
    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == EXTENSION) {
                files.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(FILES_MAX);
        files.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// Magic, digest, code.
fn seal(code: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(MAGIC.len() + DIGEST_BYTES + code.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&Sha256::digest(code));
    file.extend_from_slice(code);
    file
}

/// The code of a whole file.
fn unseal(file: &[u8]) -> Option<&[u8]> {
    let (digest, code) = file.strip_prefix(MAGIC)?.split_at_checked(DIGEST_BYTES)?;
    (Sha256::digest(code).as_slice() == digest).then_some(code)
}

/// What is compiled depends on how it is instrumented, and wasmtime tells by a [`std::hash::Hash`] whether code of one
/// engine fits another; this writes both into SHA-256.
struct HashOfEngine(Sha256);

impl HashOfEngine {
    fn of(engine: &Engine) -> String {
        let mut hash = HashOfEngine(Sha256::new());
        std::hash::Hash::hash(&FORMAT, &mut hash);
        std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut hash);
        hex::encode(&hash.0.finalize()[..16])
    }
}

impl std::hash::Hasher for HashOfEngine {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_be_bytes(digest[..8].try_into().expect("invariant: a digest has 32 bytes"))
    }
}

/// Whose a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner(u32);

#[cfg(unix)]
mod permissions {
    use std::{
        fs::{DirBuilder, File, Metadata, OpenOptions},
        io,
        os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
        path::Path,
    };

    use super::Owner;

    const OTHERS: u32 = 0o077;

    impl Owner {
        pub(super) fn of(metadata: &Metadata) -> Self {
            Owner(metadata.uid())
        }
    }

    pub(super) fn create(dir: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    pub(super) fn create_file(path: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    /// The mode, if it lets others in.
    pub(super) fn open_to_others(metadata: &Metadata) -> Option<u32> {
        let mode = metadata.mode() & 0o7777;
        (mode & OTHERS != 0).then_some(mode)
    }
}

/// Elsewhere it cannot be told who may write a folder, so there is no cache.
#[cfg(not(unix))]
mod permissions {
    use std::{
        fs::{File, Metadata},
        io,
        path::Path,
    };

    use super::Owner;

    impl Owner {
        pub(super) fn of(_metadata: &Metadata) -> Self {
            Owner(0)
        }
    }

    pub(super) fn create(_dir: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn create_file(_path: &Path) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn open_to_others(_metadata: &Metadata) -> Option<u32> {
        Some(0)
    }
}

#[cfg(test)]
#[path = "cache/tests.rs"]
mod tests;
