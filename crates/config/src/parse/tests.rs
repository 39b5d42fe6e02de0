//! Parsing: where values stand, what is refused, what a hostile file costs.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn first_problem(text: &str) -> (usize, usize, String) {
    let problem = parse(text).unwrap_err().remove(0);
    (problem.at.line, problem.at.column, problem.message)
}

#[test]
fn values_know_their_place() {
    let root =
        parse("\u{feff}a: 1\r\nb:\r\n  - \"ü\": x\n    c: [~, |x]\n  - >-  # how\n\n    folded\n    text\n")
            .unwrap();
    let place = |node: &Node| (node.at.line, node.at.column);
    assert_eq!(place(root.get("a").unwrap()), (1, 4));
    let items = root.get("b").unwrap().items();
    assert_eq!(place(&items[0]), (3, 5));
    assert_eq!(place(items[0].get("ü").unwrap()), (3, 10));
    assert_eq!(items[0].get("c").unwrap().items()[0].kind, NodeKind::Null);
    assert_eq!(items[1].text(), Some("\nfolded text"));
    assert_eq!(place(&items[1]), (5, 5));
}

#[test]
fn aliases_are_replaced() {
    let root = parse("a: &x { k: [1, 2] }\nb: *x\nc: { d: *x }").unwrap();
    assert_eq!(root.get("a"), root.get("b"));
    assert_eq!(root.get("c").unwrap().get("d"), root.get("a"));
}

#[test]
fn what_hides_something_is_refused() {
    let cases = [
        ("a: 1\nb: 2\na: 3", (3, 1, "the key 'a' stands twice, first in line 1")),
        ("a: !!str 5", (1, 4, "tags ('!…') are not supported")),
        ("a: &x {b: 1}\nc: {<<: *x}", (2, 5, "merge keys ('<<') are not supported")),
        ("a: 1\n---\nb: 2", (2, 1, "a second document in one file")),
        ("a: &x [*x]", (1, 8, "an alias inside the value of its own anchor")),
        ("? [a]\n: b", (1, 3, "a key must be text")),
        ("a: {{follower}}", (1, 5, "a key must be text")),
        (": b", (1, 1, "a key is missing before ':'")),
        ("a: b\u{0}c: d", (1, 5, "control character U+0000")),
        ("", (1, 1, "the file is empty")),
        ("# only a comment\n", (1, 1, "the file is empty")),
    ];
    for (text, (line, column, message)) in cases {
        assert_eq!(first_problem(text), (line, column, message.to_owned()), "{text:?}");
    }
}

#[test]
fn mistakes_before_the_last_do_not_hide_each_other() {
    let problems = parse("a: !x 1\na: 2\nb: *none").unwrap_err();
    let lines: Vec<_> = problems.iter().map(|problem| problem.at.line).collect();
    assert_eq!(lines, [1, 2, 3]);
    assert!(problems[2].message.starts_with("not YAML: "), "{}", problems[2].message);
}

#[test]
fn a_billion_laughs_are_refused() {
    let mut text = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..10 {
        let alias = format!("*a{},", level - 1).repeat(9);
        text.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
    }
    assert!(first_problem(&text).2.starts_with("more than 100000 values"));
    let long = format!("a: &a {}\nb: [{}]", "x".repeat(500_000), "*a,".repeat(1000));
    assert!(first_problem(&long).2.starts_with("more than 4194304 bytes of text"));
}

#[test]
fn nesting_has_an_end() {
    let nested = |depth: usize| format!("{}x{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse(&nested(DEPTH_MAX)).is_ok());
    assert_eq!(
        first_problem(&nested(DEPTH_MAX + 1)),
        (1, DEPTH_MAX + 1, "nested deeper than 32 levels".into())
    );
    for depth in [300, 100_000] {
        assert_eq!(first_problem(&nested(depth)).2, "nested deeper than 32 levels");
    }
    assert_eq!(first_problem(&"- ".repeat(400_000)).2, "nested deeper than 32 levels");
    assert_eq!(first_problem(&"? ".repeat(400_000)).2, "a key must be text");
    let mut chained = String::from("a0: &a0 [[[[[[[[x]]]]]]]]\n");
    for level in 1..8 {
        chained.push_str(&format!("a{level}: &a{level} [[[[*a{}]]]]\n", level - 1));
    }
    assert_eq!(first_problem(&chained).2, "nested deeper than 32 levels");
}

#[test]
fn size_has_an_end() {
    assert!(first_problem(&"#".repeat(FILE_BYTES_MAX + 1)).2.starts_with("the file has 1048577 bytes"));
    let items = format!("[{}]", "1,".repeat(NODES_MAX));
    assert!(first_problem(&items).2.starts_with("more than 100000 values"));
    assert!(first_problem(&format!("{}: 1", "k".repeat(257))).2.starts_with("a key of 257 bytes"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn text_that_is_nearly_yaml_never_panics(text in "[-\\[\\]{}:,#&*!|>'\"%@`? \\n\\t\\r<~.a0\u{85}\u{2028}\u{feff}ü$\\\\x]{0,60}") {
        let _ = parse(&text);
    }
}

/// Files of the greatest size made of one piece over and over, whatever they are, are judged: nothing grows
/// without bound on the way.
#[test]
fn repetitions_come_to_an_end() {
    let pieces = [
        "- ", "? ", "[", "{", "a: ", "&a ", "!x ", "*a,", "\"", "'", "|\n", "a:\n ", "- a\n", "a: b\n",
        "[],", "\t", "#", "%", "---\n", "...\n", ": ", ",", "${", "ü", "\\", "\r", "- - a\n", "[a: b],",
        ">\n\n", "{a: ", "-\n",
    ];
    for piece in pieces {
        for prefix in ["", "a: [", "a: \"", "a: |\n "] {
            let text = format!("{prefix}{}", piece.repeat((FILE_BYTES_MAX - prefix.len()) / piece.len()));
            let (node, problems) = parse_all(&text);
            assert!(
                node.is_some() || !problems.is_empty(),
                "{prefix:?} and {piece:?}: no tree and no problem"
            );
        }
    }
}
