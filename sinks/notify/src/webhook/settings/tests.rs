//! Settings in, options or located mistakes out.
#![allow(clippy::unwrap_used)]

use millrace_core::settings::{Key, Location, Node, NodeKind};

use super::*;

fn scalar(text: &str) -> Node {
    Node { at: Location::default(), kind: NodeKind::Scalar { text: text.into(), plain: true } }
}

fn key(text: &str) -> Key {
    Key { at: Location::default(), text: text.into() }
}

/// `name=value` sets a header, `+entry` allows an entry, anything else is a setting of its own.
fn read(pairs: &[(&str, &str)]) -> Result<Options, Vec<String>> {
    let at = Location::default();
    let mut entries = Vec::new();
    let (mut headers, mut allowed) = (Vec::new(), Vec::new());
    for (name, value) in pairs {
        if let Some(header) = name.strip_suffix('=') {
            headers.push((key(header), scalar(value)));
        } else if *name == "+" {
            allowed.push(scalar(value));
        } else {
            entries.push((key(name), scalar(value)));
        }
    }
    entries.push((key("headers"), Node { at, kind: NodeKind::Map(headers) }));
    entries.push((key("allow_private"), Node { at, kind: NodeKind::List(allowed) }));
    let mut problems = Problems::default();
    let settings = Settings::new(Node { at, kind: NodeKind::Map(entries) }, "hook");
    let options = Options::read(&settings, &mut problems);
    options.ok_or_else(|| {
        problems.into_sorted().into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect()
    })
}

#[test]
fn defaults_and_nothing_secret_is_shown() {
    let options = read(&[
        ("url", "https://hooks.example/T0/sesame"),
        ("secret", "sesame"),
        ("Authorization=", "Bearer sesame"),
        ("ledger", "feeds"),
    ])
    .unwrap();
    assert_eq!((options.timeout, options.concurrency), (TIMEOUT_DEFAULT, 8));
    assert_eq!(options.ledger(), Some(("feeds", REMEMBER_DEFAULT)));
    assert_eq!(options.destination(), "https://hooks.example");
    let shown = format!("{:?} {:?}", options.headers, options.secret);
    assert!(!shown.contains("sesame"), "{shown}");
}

#[test]
fn mistakes_are_named() {
    let ok = [("url", "https://a.example/"), ("secret", "s")];
    let wrong: [(&[(&str, &str)], &str); 13] = [
        (&[("url", "http://a.example"), ("secret", "s")], "hook.url: is not encrypted"),
        (&[("url", "ftp://a.example"), ("secret", "s")], "hook.url: must begin with https://"),
        (&[("url", "a.example"), ("secret", "s")], "hook.url: is not a URL"),
        (&[("url", "https://u:p@a.example"), ("secret", "s")], "hook.url: holds credentials"),
        (&[("url", "https://a.example")], "hook: 'secret' is missing"),
        (&[("url", "https://127.0.0.1"), ("secret", "s")], "hook.url: 127.0.0.1 is loopback"),
        (&[("url", "https://2130706433"), ("secret", "s")], "hook.url: 127.0.0.1 is loopback"),
        (&[("url", "https://0x7f.1"), ("secret", "s")], "hook.url: 127.0.0.1 is loopback"),
        (
            &[("url", "https://[::ffff:8.8.8.8]"), ("secret", "s")],
            "hook.url: ::ffff:8.8.8.8 is an IPv4 address in disguise",
        ),
        (&[ok[0], ok[1], ("+", "10.0.0.0/40")], "hook.allow_private: '10.0.0.0/40' is no network"),
        (&[ok[0], ok[1], ("Idempotency-Key=", "x")], "hook.headers: 'Idempotency-Key' is set by the sink"),
        (&[ok[0], ok[1], ("bad name=", "x")], "hook.headers: 'bad name' is no name of a header"),
        (&[ok[0], ok[1], ("x=", "a\nb")], "hook.headers: 'x' has a value that cannot stand in a header"),
    ];
    for (pairs, expected) in wrong {
        let problems = read(pairs).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with(expected), "{problems:?}");
    }
}

#[test]
fn what_is_listed_is_reached() {
    let allowed =
        [("url", "http://127.0.0.1:8080/x"), ("secret", "s"), ("allow_http", "true"), ("+", "127.0.0.0/8")];
    assert!(read(&allowed).is_ok());
    assert!(read(&allowed[..3]).is_err());
}
