//! Variables: what is substituted, what is literal, what is wrong.

use super::*;

fn expanded(text: &str) -> Result<String, Wrong> {
    substitute(text, &|name| match name {
        "HOST" => Some("db".into()),
        "EMPTY" => Some(String::new()),
        "TRICKY" => Some("a: b # ${HOST} {x}".into()),
        _ => None,
    })
}

#[test]
fn variables_and_defaults() {
    let cases = [
        ("${HOST}", "db"),
        ("redis://${HOST}:${PORT:-6379}/", "redis://db:6379/"),
        ("${EMPTY}|${EMPTY:-d}|${NONE:-}", "|d|"),
        ("${PREFIX:-feed:{user}}:{x}", "feed:{user}:{x}"),
        ("$${HOST} costs 5$ and $HOST", "${HOST} costs 5$ and $HOST"),
        ("$${HOST}${HOST}", "${HOST}db"),
        ("$", "$"),
    ];
    for (source, text) in cases {
        assert_eq!(expanded(source).as_deref(), Ok(text), "{source}");
    }
}

#[test]
fn a_value_is_never_expanded_again() {
    assert_eq!(expanded("${TRICKY}").as_deref(), Ok("a: b # ${HOST} {x}"));
}

#[test]
fn mistakes_are_told_apart() {
    assert_eq!(expanded("${NONE}"), Err(Wrong::Unset("NONE".into())));
    assert_eq!(expanded("${HOST"), Err(Wrong::Unclosed));
    assert_eq!(expanded("${a.b}"), Err(Wrong::BadName("a.b".into())));
    assert_eq!(expanded("${}"), Err(Wrong::BadName(String::new())));
    assert_eq!(expanded("${1A}"), Err(Wrong::BadName("1A".into())));
    assert_eq!(expanded("${A:-${B}}"), Err(Wrong::Nested));
}

#[test]
fn variables_that_hold_too_much_are_refused() {
    let at = Location { line: 1, column: 1 };
    let item = Node { at, kind: NodeKind::Scalar { text: "${BIG}".into(), plain: true } };
    let mut list = Node { at, kind: NodeKind::List(vec![item; 5]) };
    let mut problems = Problems::default();
    let unresolved = expand(&mut list, &|_| Some("x".repeat(1 << 20)), false, &mut problems);
    assert_eq!(unresolved.len(), 1);
    assert_eq!(problems.into_sorted()[0].message, "the variables hold more than 4194304 bytes");
}
