//! `millrace smartmodule new`: a crate that builds, with native tests and a golden case that pass.

use std::{
    fs,
    io::{self, Write, stdout},
    path::Path,
};

use serde_json::{Value, json};

use crate::{
    args::{NewArgs, NewKind},
    report::Failure,
};

/// The files that every kind has.
const CARGO: &str = include_str!("template/Cargo.toml.txt");
const CONFIG: &str = include_str!("template/config.toml.txt");
const IGNORED: &str = include_str!("template/gitignore.txt");
const SHEET: &str = include_str!("template/SmartModule.toml.txt");
const INPUT: &str = include_str!("template/input.ndjson.txt");

/// The parameter of the filter.
const WORD: &str = r#"
[[params]]
name = "word"
description = "The word to look for; hello by default"
optional = true
"#;

/// What differs between kinds.
struct Template {
    description: &'static str,
    params: &'static str,
    code: &'static str,
    /// What becomes of [`INPUT`]: the line it came from, and the value.
    passed: &'static [(u64, &'static str)],
}

pub fn run(args: &NewArgs) -> Result<(), Failure> {
    let folder = Path::new(&args.name);
    fs::create_dir(folder).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AlreadyExists => "; choose another name, or remove it",
            _ => "",
        };
        Failure::input(format!("{}: {error}{advice}", folder.display()))
    })?;
    let files = files(&args.name, &template(args.kind))?;
    for (path, text) in &files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        fs::write(path, text)?;
    }
    let mut out = stdout().lock();
    if args.json {
        let files: Vec<Value> =
            files.iter().map(|(path, _)| folder.join(path).display().to_string().into()).collect();
        writeln!(out, "{}", json!({ "folder": folder, "files": files }))?;
        return Ok(());
    }
    let name = &args.name;
    writeln!(out, "{name}: a crate with its tests. Next:")?;
    writeln!(out, "  cd {name}")?;
    writeln!(out, "  cargo test                    # its code, on this machine")?;
    writeln!(out, "  millrace smartmodule build    # {name}.wasm")?;
    writeln!(out, "  millrace smartmodule test     # the module, on the records in cases/")?;
    Ok(())
}

fn files(name: &str, template: &Template) -> Result<Vec<(&'static str, String)>, Failure> {
    let named = |text: &str| text.replace("{name}", name);
    let sheet =
        named(SHEET).replace("{description}", template.description).replace("{params}", template.params);
    let passed = template.passed.iter().map(|(line, value)| {
        // A value that is JSON is shown as such.
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(*value));
        json!({ "line": line, "value": value })
    });
    let expected = json!({ "passed": passed.collect::<Vec<_>>(), "rejected": [] });
    Ok(vec![
        ("Cargo.toml", named(CARGO)),
        (".cargo/config.toml", CONFIG.to_owned()),
        (".gitignore", IGNORED.to_owned()),
        ("SmartModule.toml", format!("{}\n", sheet.trim_end())),
        ("src/lib.rs", named(template.code)),
        ("cases/first.input.ndjson", INPUT.to_owned()),
        ("cases/first.expected.json", format!("{}\n", serde_json::to_string_pretty(&expected)?)),
    ])
}

fn template(kind: NewKind) -> Template {
    match kind {
        NewKind::Filter => Template {
            description: "Keeps the records whose text has a word in it",
            params: WORD,
            code: include_str!("template/filter.rs.txt"),
            passed: &[(1, "hello world"), (3, "say hello")],
        },
        NewKind::Map => Template {
            description: "Writes the text of each record in capitals",
            params: "",
            code: include_str!("template/map.rs.txt"),
            passed: &[(1, "HELLO WORLD"), (2, "GOOD-BYE"), (3, "SAY HELLO")],
        },
        NewKind::FilterMap => Template {
            description: "Drops empty lines and trims the others",
            params: "",
            code: include_str!("template/filter-map.rs.txt"),
            passed: &[(1, "hello world"), (2, "good-bye"), (3, "say hello")],
        },
        NewKind::ArrayMap => Template {
            description: "Makes a record of each word",
            params: "",
            code: include_str!("template/array-map.rs.txt"),
            passed: &[(1, "hello"), (1, "world"), (2, "good-bye"), (3, "say"), (3, "hello")],
        },
        NewKind::Aggregate => Template {
            description: "Counts records",
            params: "",
            code: include_str!("template/aggregate.rs.txt"),
            passed: &[(1, "1"), (2, "2"), (3, "3")],
        },
    }
}
