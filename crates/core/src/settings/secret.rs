//! Secrets: text that no `Debug`, log or error ever shows.

use std::{fmt, path::PathBuf};

use crate::error::{Error, Result};

/// A secret's file may hold this much.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Text that prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret comes from: `password: "${PASSWORD}"` or `password_file: path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// It stands in the configuration, by way of a variable.
    Inline(Secret),
    /// It stands in a file, without its last line end.
    File(PathBuf),
}

impl SecretSource {
    /// The secret. Reading its file is the one thing this crate reads; called when a system is opened.
    ///
    /// # Errors
    /// Fatal when the file cannot be read or is too large.
    pub fn load(&self) -> Result<Secret> {
        match self {
            SecretSource::Inline(secret) => Ok(secret.clone()),
            SecretSource::File(path) => {
                let failed = |why: &str| Error::fatal(format!("secret file {}", path.display()), why);
                let size =
                    std::fs::metadata(path).map_err(|e| failed("cannot be read").with_source(e))?.len();
                if size > SECRET_BYTES_MAX {
                    return Err(failed("is larger than 64 KiB"));
                }
                let text =
                    std::fs::read_to_string(path).map_err(|e| failed("cannot be read").with_source(e))?;
                Ok(Secret(text.trim_end_matches(['\n', '\r']).to_owned()))
            }
        }
    }
}
