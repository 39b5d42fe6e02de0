//! The reference page has every table as the checks have it. `UPDATE=1` rewrites the page.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

use millrace_config::{OBJECTS, SinkKind, reference};

fn tables() -> Vec<(String, String)> {
    let own = OBJECTS.iter().map(|object| (object.name.to_owned(), reference(object)));
    let sinks = SinkKind::builtin().into_iter().map(|sink| {
        let settings = sink.kind.settings;
        (settings.name.to_owned(), reference(settings))
    });
    own.chain(sinks).collect()
}

fn with_tables(page: &str) -> String {
    let mut out = String::new();
    let mut rest = page;
    while let Some(start) = rest.find("<!-- table: ") {
        let name_at = start + "<!-- table: ".len();
        let name_end = name_at + rest[name_at..].find(" -->").unwrap();
        let end = name_end + rest[name_end..].find("<!-- end -->").unwrap();
        let name = &rest[name_at..name_end];
        let (_, table) = tables().into_iter().find(|(known, _)| known == name).expect(name);
        out.push_str(&rest[..name_end]);
        out.push_str(&format!(" -->\n{table}"));
        rest = &rest[end..];
    }
    out + rest
}

#[test]
fn the_page_has_every_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/pipelines.md");
    let page = fs::read_to_string(&path).unwrap();
    let expected = with_tables(&page);
    for (name, _) in tables() {
        assert!(page.contains(&format!("<!-- table: {name} -->")), "the page lacks the table of '{name}'");
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(page == expected, "docs/reference/pipelines.md is not up to date: run this test with UPDATE=1");
}
