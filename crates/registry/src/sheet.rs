//! `SmartModule.toml`: what a module's author says of it. Fluvio's file; what is in it beyond this is left alone.

use millrace_core::{Version, is_module_name, parse_version};
use serde::Deserialize;

use crate::manifest::Param;

/// Bytes of a file that is read.
const FILE_BYTES_MAX: usize = 64 << 10;
/// Entries of a list.
const ENTRIES_MAX: usize = 100;
/// Bytes of a name or a description.
const TEXT_BYTES_MAX: usize = 500;

/// What a module's author says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sheet {
    /// The module's name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<Version>,
    /// What it does, in a line.
    pub description: Option<String>,
    /// Its parameters.
    pub params: Vec<Param>,
    /// The top-level fields of its output, where it changes the shape.
    pub output_fields: Option<Vec<String>>,
}

/// Why a file is no such sheet.
#[derive(Debug, thiserror::Error)]
pub enum SheetError {
    /// It is no TOML, or a key has another type.
    #[error("{0}")]
    Toml(String),
    /// A key says what cannot be.
    #[error("{0}: {1}")]
    Key(&'static str, String),
    /// It is too large.
    #[error("it is larger than {FILE_BYTES_MAX} bytes")]
    Size,
}

#[derive(Deserialize)]
struct File {
    package: Package,
    #[serde(default)]
    params: Vec<Param>,
    output: Option<Output>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    description: Option<String>,
}

#[derive(Deserialize)]
struct Output {
    fields: Vec<String>,
}

impl Sheet {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, SheetError> {
        if text.len() > FILE_BYTES_MAX {
            return Err(SheetError::Size);
        }
        let file: File = toml::from_str(text).map_err(|error| SheetError::Toml(error.to_string()))?;
        if !is_module_name(&file.package.name) {
            let why = format!("'{}' is no name: letters, digits, '.', '_' and '-'", file.package.name);
            return Err(SheetError::Key("package.name", why));
        }
        let version = parse_version(&file.package.version)
            .map_err(|error| SheetError::Key("package.version", error.to_string()))?;
        let output_fields = file.output.map(|output| output.fields);
        let sheet = Sheet {
            name: Some(file.package.name),
            version: Some(version),
            description: file.package.description,
            params: file.params,
            output_fields,
        };
        sheet.within_bounds()?;
        Ok(sheet)
    }

    fn within_bounds(&self) -> Result<(), SheetError> {
        let fields = self.output_fields.iter().flatten();
        if self.params.len() > ENTRIES_MAX || fields.clone().count() > ENTRIES_MAX {
            return Err(SheetError::Key("params, output.fields", format!("more than {ENTRIES_MAX} entries")));
        }
        let params = self.params.iter().flat_map(|param| [Some(&param.name), param.description.as_ref()]);
        let texts = params.flatten().chain(fields).chain(&self.description);
        if texts.into_iter().any(|text| text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control)) {
            let why = format!("a text is one line of at most {TEXT_BYTES_MAX} bytes");
            return Err(SheetError::Key("name, description", why));
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn fluvios_file_is_read() {
        let sheet = Sheet::parse(include_str!("../../../smartmodules/feed-fanout/SmartModule.toml")).unwrap();
        assert_eq!(sheet.name.as_deref(), Some("feed-fanout"));
        assert_eq!(sheet.params[0].name, "from");
        assert!(sheet.params[0].optional);
        assert_eq!(sheet.output_fields.unwrap()[0], "op");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let with = |name: &str, version: &str, more: &str| {
            let text = format!("[package]\nname = \"{name}\"\nversion = \"{version}\"\n{more}");
            Sheet::parse(&text).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(with("a", "1.0.0", "apiVersion = \"0.1.0\""), Ok(()));
        assert!(with("a b", "1.0.0", "").unwrap_err().contains("'a b' is no name"));
        assert!(with("a", "1.0", "").unwrap_err().contains("package.version: a version is"));
        assert!(with("a", "1.0.0", "description = \"a\\nb\"").unwrap_err().contains("one line"));
        assert!(with("a", "1.0.0", "x").unwrap_err().contains("line 4"));
        assert!(Sheet::parse("").unwrap_err().to_string().contains("package"));
    }
}
