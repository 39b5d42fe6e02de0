//! Signatures: who vouches for a version. Ed25519 over name, version and digest, so that a signed module cannot be
//! passed off as another, or as another version of itself.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use millrace_core::{Error, Result, Version};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use crate::manifest::{Manifest, Signature};

/// What an ed25519 public key begins with in DER.
const PUBLIC_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const PUBLIC_BYTES: usize = 32;
/// Bytes of a file that may hold a key.
const FILE_BYTES_MAX: usize = 4 << 10;

/// Signs modules.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

/// Tells whether a module was signed with the key it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    bytes: [u8; PUBLIC_BYTES],
}

/// Why a file holds no such key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No key at all.
    #[error("it holds no '{0}' in PEM; 'openssl genpkey -algorithm ed25519' makes keys")]
    Pem(&'static str),
    /// Another key.
    #[error("it holds a key that is not ed25519; 'openssl genpkey -algorithm ed25519' makes one")]
    Kind,
}

impl SigningKey {
    /// Reads a private key, PKCS #8 in PEM, as openssl writes it.
    ///
    /// # Errors
    /// It is none.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = from_pem(text, "PRIVATE KEY")?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| KeyError::Kind)?;
        Ok(SigningKey { pair })
    }

    /// The key that its signatures are verified with.
    pub fn verifying(&self) -> VerifyingKey {
        let bytes = self.pair.public_key().as_ref().try_into();
        VerifyingKey { bytes: bytes.expect("invariant: an ed25519 public key has 32 bytes") }
    }

    pub(crate) fn sign(&self, name: &str, version: &Version, digest: &str) -> Signature {
        let signature = self.pair.sign(&statement(name, version, digest));
        Signature { key: self.verifying().id(), signature: STANDARD.encode(signature) }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifying().id())
    }
}

impl VerifyingKey {
    /// Reads a public key in PEM, as openssl writes it.
    ///
    /// # Errors
    /// It is none.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = from_pem(text, "PUBLIC KEY")?;
        let bytes = der.strip_prefix(PUBLIC_PREFIX.as_slice()).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| VerifyingKey { bytes }).ok_or(KeyError::Kind)
    }

    /// Names the key: the first 16 hex digits of its SHA-256.
    pub fn id(&self) -> String {
        hex::encode(&Sha256::digest(self.bytes)[..8])
    }
}

/// Whether one of these keys vouches for a version.
///
/// # Errors
/// Fatal: none does.
pub fn verify(manifest: &Manifest, keys: &[VerifyingKey]) -> Result<()> {
    let refuse = |why: String| Err(Error::fatal(format!("module {}", manifest.label()), why));
    let Some(signature) = &manifest.signature else {
        return refuse(
            "is not signed, and 'require_signature' asks for it: deploy it again under a new version with '--sign-key FILE'"
                .to_owned(),
        );
    };
    let Some(key) = keys.iter().find(|key| key.id() == signature.key) else {
        return refuse(format!(
            "is signed with the key '{}', which is none of those that 'require_signature' names",
            signature.key.chars().take(16).flat_map(char::escape_debug).collect::<String>()
        ));
    };
    let bytes = STANDARD.decode(&signature.signature).unwrap_or_default();
    let stated = statement(&manifest.name, &manifest.version, &manifest.digest);
    match UnparsedPublicKey::new(&ED25519, key.bytes).verify(&stated, &bytes) {
        Ok(()) => Ok(()),
        Err(_) => refuse(format!("has a signature that the key '{}' did not make", signature.key)),
    }
}

/// What is signed.
fn statement(name: &str, version: &Version, digest: &str) -> Vec<u8> {
    format!("millrace smartmodule 1\n{name}\n{version}\nsha256:{digest}\n").into_bytes()
}

/// The bytes of the first section of that label.
fn from_pem(text: &str, label: &'static str) -> Result<Vec<u8>, KeyError> {
    let section = || {
        let (_, rest) =
            text.get(..text.len().min(FILE_BYTES_MAX))?.split_once(&format!("-----BEGIN {label}-----"))?;
        let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
        STANDARD.decode(body.split_whitespace().collect::<String>()).ok()
    };
    section().ok_or(KeyError::Pem(label))
}
