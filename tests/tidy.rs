//! The house rules that neither the compiler nor clippy holds: sizes, the direction of dependencies, what the
//! documents promise. Each is a test whose message says what to do.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

const LINES_MAX: usize = 600;

/// Pauses in test code that nobody waits with.
const PAUSES: [(&str, &str); 3] = [
    ("crates/testkit/src/index_suite/writer.rs", "stands for the runtime, which backs off between rounds"),
    ("crates/testkit/src/sim/world.rs", "is how simulated time passes, on a paused clock"),
    ("tests/faults/clock.rs", "faults come at their own time, to real servers with real clocks"),
];

/// Folders that hold what was built or downloaded.
const NOT_OURS: [&str; 3] = ["target", ".git", ".millrace"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file under a folder of the project, by its path from the root.
fn texts(folder: &str) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if !NOT_OURS.contains(&name.as_str()) {
                    open.push(path);
                }
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                texts.insert(path, text);
            }
        }
    }
    texts
}

fn with_extension(extension: &str) -> impl Iterator<Item = (String, String)> {
    let suffix = format!(".{extension}");
    texts("").into_iter().filter(move |(path, _)| path.ends_with(&suffix))
}

/// Fails with all mistakes at once and what to do about them.
fn none<T: Display>(mistakes: impl IntoIterator<Item = T>, advice: &str) {
    let list: Vec<String> = mistakes.into_iter().map(|mistake| format!("  {mistake}")).collect();
    assert!(list.is_empty(), "{advice}:\n{}", list.join("\n"));
}

/// Whether `word` stands in `text` as a whole word.
fn has_word(text: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(part_of_word) && !text[at + word.len()..].starts_with(part_of_word)
    })
}

/// The folders of our crates, as `sinks/redis`.
fn crate_folders() -> Vec<String> {
    let mut folders = Vec::new();
    for parent in ["crates", "connectors", "sinks"] {
        for entry in fs::read_dir(root().join(parent)).unwrap() {
            let path = entry.unwrap().path();
            if path.join("Cargo.toml").exists() {
                folders.push(format!("{parent}/{}", path.file_name().unwrap().to_string_lossy()));
            }
        }
    }
    folders.sort();
    assert!(folders.len() > 10, "{folders:?}");
    folders
}

/// The entries of a Cargo.toml as section, key and value.
fn manifest(folder: &str) -> Vec<(String, String, String)> {
    let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let mut section = String::new();
    let mut entries = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            entries.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    entries
}

/// The packages that a manifest's section names, also those of single targets.
fn dependencies(folder: &str, section: &str) -> BTreeSet<String> {
    manifest(folder)
        .into_iter()
        .filter(|(of, _, _)| {
            of == section || (of.starts_with("target.") && of.ends_with(&format!(".{section}")))
        })
        .map(|(_, key, _)| key.split('.').next().unwrap_or_default().to_owned())
        .collect()
}

fn millrace(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(args)
        .current_dir(root())
        .env_clear()
        .env("HOME", env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn source_files_are_short() {
    let long = with_extension("rs")
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines"));
    none(long, "a source file has at most 600 lines; split these by what their parts are about");
}

#[test]
fn source_files_say_what_they_are() {
    let silent = with_extension("rs").filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path);
    none(silent, "a source file opens with '//!': what it is, and why");
}

#[test]
fn nothing_is_left_undone() {
    let marks = [
        concat!("#[ign", "ore"),
        concat!("tod", "o!("),
        concat!("unimpl", "emented!("),
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
    ];
    let found = texts("").into_iter().filter(|(path, _)| path != "Cargo.lock").flat_map(|(path, text)| {
        let hits = marks.iter().filter(|mark| text.contains(*mark)).copied();
        hits.map(|mark| format!("{path}: {mark}")).collect::<Vec<_>>()
    });
    none(found, "finish it, or take it out; a test that cannot run here fails and says what it needs");
}

#[test]
fn no_test_sleeps() {
    let call = concat!("sle", "ep(");
    let mut found = Vec::new();
    for (path, text) in with_extension("rs") {
        if PAUSES.iter().any(|(allowed, _)| *allowed == path) {
            continue;
        }
        let all_tests = path.contains("tests/") || path.ends_with("/tests.rs") || path.contains("testkit/");
        let mut in_tests = all_tests;
        for (number, line) in (1..).zip(text.lines()) {
            in_tests |= line.contains("#[cfg(test)]");
            if in_tests && line.contains(call) && !line.trim_start().starts_with("//") {
                found.push(format!("{path}:{number}"));
            }
        }
    }
    none(
        found,
        "a test waits for the event itself, within a time-out, or pauses tokio's clock and advances it",
    );
}

#[test]
fn dependencies_point_one_way() {
    const CORE: &[&str] = &["millrace-core"];
    const STATE: &[&str] = &["millrace-config", "millrace-core"];
    const SQLITE: &[&str] = &["millrace-core", "millrace-sqlite-file"];
    let mut wrong = Vec::new();
    for folder in crate_folders() {
        let allowed = match folder.as_str() {
            "crates/core" => &[],
            // A file's meaning is the config's matter; what follows from it is not.
            "crates/state" => STATE,
            "connectors/embedded" | "crates/spool" | "sinks/sqlite" => SQLITE,
            // A guest's: nothing of the host's goes into a module.
            "crates/smartmodule" => &["millrace-smartmodule-derive"],
            "crates/smartmodule-derive" => &[],
            _ => CORE,
        };
        let ours = |name: &String| name.starts_with("millrace-");
        for name in dependencies(&folder, "dependencies").into_iter().filter(ours) {
            if !allowed.contains(&name.as_str()) {
                wrong.push(format!("{folder} depends on {name}"));
            }
        }
        for name in dependencies(&folder, "dev-dependencies").into_iter().filter(ours) {
            if !allowed.contains(&name.as_str()) && name != "millrace-testkit" {
                wrong.push(format!("{folder} depends on {name} in its tests"));
            }
        }
    }
    if dependencies("", "dependencies").contains("millrace-testkit") {
        wrong.push("the program depends on millrace-testkit".into());
    }
    let advice = "crates/* and systems depend on millrace-core alone (those with a SQLite file on millrace-sqlite-file too, \
        crates/state on millrace-config), \
        and in tests on millrace-testkit; what two of them share is a contract, or belongs to the program";
    none(wrong, advice);
}

#[test]
fn crates_take_from_the_tables() {
    let mut wrong = Vec::new();
    for folder in crate_folders() {
        let entries = manifest(&folder);
        for (section, key, value) in &entries {
            let from_table = key.ends_with(".workspace") || value.contains("workspace = true");
            if section.ends_with("dependencies") && !from_table {
                wrong.push(format!("{folder}: {key} is not from the root's dependency table"));
            }
            if section == "features" {
                wrong.push(format!("{folder}: feature {key}"));
            }
        }
        let has = |section: &str, key: &str, value: &str| {
            entries.iter().any(|(s, k, v)| s == section && k == key && v == value)
        };
        if !has("lints", "workspace", "true") || !has("package", "publish", "false") {
            wrong.push(format!("{folder}: needs '[lints] workspace = true' and 'publish = false'"));
        }
        if dependencies(&folder, "dependencies").contains("anyhow") {
            wrong.push(format!("{folder}: libraries say what failed: millrace_core::Error, or thiserror"));
        }
    }
    none(wrong, "one dependency table and one lint table, in the root Cargo.toml; no features in our crates");
}

#[test]
fn only_the_registry_names_systems() {
    let systems: Vec<String> = crate_folders()
        .iter()
        .filter(|folder| !folder.starts_with("crates/"))
        .map(|folder| format!("millrace_{}", folder.rsplit('/').next().unwrap().replace('-', "_")))
        .collect();
    let mut found = Vec::new();
    for (path, text) in texts("src").into_iter().chain(texts("crates")) {
        if path.ends_with(".rs") && path != "src/registry.rs" {
            let named = systems.iter().filter(|system| has_word(&text, system));
            found.extend(named.map(|system| format!("{path}: {system}")));
        }
    }
    none(found, "concrete systems are named in src/registry.rs only; let it return what the contract names");
}

#[test]
fn every_kind_has_a_reference_page() {
    let output = millrace(&["schema"]);
    let schema: Value = serde_json::from_slice(&output.stdout).expect("'millrace schema' prints JSON");
    let kinds: Vec<String> = schema["$defs"]
        .as_object()
        .expect("definitions")
        .keys()
        .filter_map(|name| name.split_once('.').filter(|(of, _)| ["broker", "store", "sink"].contains(of)))
        .map(|(_, kind)| kind.to_owned())
        .collect();
    assert!(kinds.len() > 8, "{kinds:?}");
    let pages = texts("docs/reference");
    let described = |kind: &str| {
        let heading = format!("`{kind}`");
        pages.contains_key(&format!("docs/reference/{kind}.md"))
            || pages.values().any(|page| page.lines().any(|l| l.starts_with('#') && l.contains(&heading)))
    };
    let silent = kinds.iter().filter(|kind| !described(kind));
    none(silent, "write docs/reference/<kind>.md, or a section whose heading is `kind` in one of its pages");
}

#[test]
fn every_crate_is_in_the_architecture() {
    let text = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let sections: BTreeMap<&str, &str> = text
        .split("\n### ")
        .skip(1)
        .filter_map(|section| section.split_once('\n'))
        .map(|(heading, body)| (heading.trim_matches('`'), body.split("\n## ").next().unwrap_or(body)))
        .collect();
    let folders = crate_folders().into_iter().chain(["src".to_owned(), "smartmodules".to_owned()]);
    let silent = folders
        .filter(|folder| !sections.get(folder.as_str()).is_some_and(|body| body.contains("**Invariant:**")));
    none(
        silent,
        "docs/architecture.md needs a section '### `folder`' with a paragraph and an '**Invariant:**'",
    );
    let gone = sections.keys().filter(|name| name.contains('/') && !root().join(name).exists());
    none(gone, "docs/architecture.md describes what is not there");
}

#[test]
fn no_file_knows_this_machine() {
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let own = root().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for (file, text) in texts("") {
        for (number, line) in (1..).zip(text.lines()) {
            if paths.iter().any(|path| line.contains(path)) || line.contains(&own) {
                found.push(format!("{file}:{number}"));
            }
        }
    }
    none(found, "name files from the root of the project, or by a variable");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for (file, text) in with_extension("md") {
        let folder = root().join(&file).parent().map(Path::to_path_buf).unwrap();
        for rest in text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            let path = target.split('#').next().unwrap_or_default();
            if !target.contains("://") && !path.is_empty() && !folder.join(path).exists() {
                broken.push(format!("{file}: {target}"));
            }
        }
    }
    none(broken, "links are relative to their document");
}

/// The tests a document names, as `file::function`.
fn named_tests(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split('`').skip(1).step_by(2).filter_map(|span| span.split_once(".rs::"))
}

#[test]
fn every_guarantee_names_tests_that_exist() {
    let document = fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let mut wrong = Vec::new();
    let mut in_table = false;
    for (number, line) in (1..).zip(document.lines()) {
        let is_row = line.starts_with('|');
        // The first line of a table names its columns, the second is a rule.
        if is_row && in_table && !line.starts_with("|---") && named_tests(line).next().is_none() {
            wrong.push(format!("line {number} names no test"));
        }
        in_table = is_row;
        for (file, name) in named_tests(line) {
            let source = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
            if !source.contains(&format!("fn {name}(")) {
                wrong.push(format!("line {number}: there is no {name} in {file}.rs"));
            }
        }
    }
    none(
        wrong,
        "docs/guarantees.md: each row of a table ends with `file.rs::function` of a test that shows it",
    );
}

#[test]
fn shipped_modules_match_their_manifest() {
    let script: PathBuf = root().join("scripts/smartmodules");
    let output = Command::new(script).arg("check").output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_reference_pipelines_are_sound_and_have_golden_cases() {
    let checked = millrace(&["check"]);
    assert!(checked.status.success(), "pipelines.yaml:\n{}", text(&checked.stderr));
    let yaml = fs::read_to_string(root().join("pipelines.yaml")).unwrap();
    let (_, pipelines) = yaml.split_once("\npipelines:\n").expect("a section 'pipelines'");
    let names: Vec<&str> = pipelines
        .lines()
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with([' ', '#'])))
        .filter_map(|line| line.strip_suffix(':'))
        .collect();
    assert!(names.len() > 5, "{names:?}");
    let cases = texts("cases");
    let lacking = names.iter().filter(|name| {
        let of = |path: &&String| path.starts_with(&format!("cases/{name}/"));
        let inputs: Vec<_> = cases.keys().filter(of).filter(|path| path.ends_with(".input.ndjson")).collect();
        inputs.len() < 2 || !inputs.iter().any(|path| path.ends_with("/malformed.input.ndjson"))
    });
    none(lacking, "a pipeline needs cases/<pipeline>/malformed.input.ndjson and at least one good case");
}

#[test]
fn the_golden_cases_hold() {
    let output = millrace(&["test"]);
    assert!(output.status.success(), "millrace test:\n{}{}", text(&output.stdout), text(&output.stderr));
}

/// The commands of the program with their help, by path: `run`, `topic create`.
fn commands() -> BTreeMap<String, String> {
    fn visit(path: &[&str], found: &mut BTreeMap<String, String>) {
        let args: Vec<&str> = path.iter().copied().chain(["--help"]).collect();
        let help = text(&millrace(&args).stdout);
        let listed = help.split("Commands:\n").nth(1).unwrap_or_default();
        for line in listed.lines().take_while(|line| !line.trim().is_empty()) {
            // A name stands after two spaces, a further line of its description after more.
            let name = line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '));
            if let Some(name) = name.and_then(|rest| rest.split_whitespace().next()) {
                visit(&[path, &[name]].concat(), found);
            }
        }
        found.insert(path.join(" "), help);
    }
    let mut found = BTreeMap::new();
    visit(&[], &mut found);
    assert!(found.len() > 8, "{:?}", found.keys());
    found
}

/// What stands in a document's code, a line or a span each.
fn code(document: &str) -> Vec<String> {
    let mut code = Vec::new();
    for (index, part) in document.split("```").enumerate() {
        if index % 2 == 1 {
            code.extend(part.replace("\\\n", " ").lines().map(str::to_owned));
        } else {
            code.extend(part.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    code
}

#[test]
fn documented_commands_exist() {
    let commands = commands();
    let documents = with_extension("md").filter(|(path, _)| path == "README.md" || path.starts_with("docs/"));
    let mut wrong = Vec::new();
    for (path, document) in documents {
        for line in code(&document) {
            for start in ["millrace ", "cargo run --release -- "] {
                for (at, _) in line.match_indices(start) {
                    let (before, rest) = (&line[..at], &line[at + start.len()..]);
                    if !before.is_empty() && !before.ends_with([' ', '(', '/']) {
                        continue;
                    }
                    let call = rest.split(['|', ';', '#', '>', ')', '&', '"']).next().unwrap_or_default();
                    let mistakes = mistakes_of(call, &commands);
                    wrong.extend(
                        mistakes.into_iter().map(|what| format!("{path}: '{}': {what}", line.trim())),
                    );
                }
            }
        }
    }
    none(wrong, "documents show commands that exist");
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let spans = code(&readme);
    let leaf =
        |path: &&String| !path.is_empty() && !commands.keys().any(|c| c.starts_with(&format!("{path} ")));
    let missing =
        commands.keys().filter(leaf).filter(|path| !spans.iter().any(|span| span.starts_with(*path)));
    none(missing, "the README's table of commands names every one");
}

/// What a command line names that the program does not have.
fn mistakes_of(call: &str, commands: &BTreeMap<String, String>) -> Vec<String> {
    let bare = |token: &'_ str| token.trim_matches(['[', ']', '\'', '"', ',', '.', ':']).to_owned();
    let mut tokens = call.split_whitespace().map(bare).peekable();
    let mut path = String::new();
    while let Some(token) = tokens.peek() {
        let longer = format!("{path} {token}").trim().to_owned();
        if !commands.contains_key(&longer) {
            break;
        }
        path = longer;
        tokens.next();
    }
    let prefix = if path.is_empty() { String::new() } else { format!("{path} ") };
    let is_group = commands.keys().any(|known| *known != path && known.starts_with(&prefix));
    if let Some(token) = tokens.peek().filter(|token| is_group && !token.starts_with('-')) {
        return vec![format!("no command '{token}'")];
    }
    let mut mistakes = Vec::new();
    for token in tokens.filter(|token| token.starts_with('-') && token.len() > 1) {
        let end = token.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(token.len());
        if !has_word(&commands[&path], &token[..end]) {
            mistakes.push(format!("'millrace {path}' has no option {}", &token[..end]));
        }
    }
    mistakes
}
