//! Every file of `cases/` has mistakes; its snapshot is what a person is shown. `INSTA_UPDATE=always` rewrites.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{fs, path::Path};

use support::plan_of;

#[test]
fn each_mistake_is_shown_where_it_stands() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 30, "only {} cases were found", cases.len());
    for case in cases {
        let name = case.file_stem().unwrap().to_string_lossy().into_owned();
        let shown = plan_of(&fs::read_to_string(&case).unwrap()).expect_err(&name);
        for secret in ["s3cr3t-value", "s3cr3t-word", "hunter2"] {
            assert!(!shown.contains(secret), "{name} shows a secret:\n{shown}");
        }
        insta::with_settings!({
            snapshot_path => &folder,
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!(name, shown); });
    }
}

#[test]
fn eight_mistakes_are_eight_problems() {
    let text = include_str!("cases/eight-mistakes.yaml");
    let shown = plan_of(text).unwrap_err();
    assert_eq!(shown.matches("error: ").count(), 8, "{shown}");
    assert_eq!(shown.matches("--> pipelines.yaml:").count(), 8, "{shown}");
    assert!(shown.ends_with("8 problems in pipelines.yaml\n"), "{shown}");
}
