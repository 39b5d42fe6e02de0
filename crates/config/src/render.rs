//! Problems as a person reads them: the line, a mark under the place, what to do about it.

use std::fmt::Write;

use millrace_core::settings::Problem;

use crate::parse::lines;

/// The most characters of a source line that are shown.
const LINE_CHARS_MAX: usize = 110;
/// The most characters of a message or a suggestion.
const TEXT_CHARS_MAX: usize = 600;
/// Values of keys with one of these words in their name are not shown.
const SECRET_WORDS: [&str; 10] = [
    "password",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "apikey",
    "authorization",
    "credential",
    "cookie",
    "signature",
];

/// All problems with their source lines, in plain text. `text` is what the problems were found in.
pub fn render(problems: &[Problem], source_name: &str, text: &str) -> String {
    let lines: Vec<&str> = lines(text.strip_prefix('\u{feff}').unwrap_or(text)).collect();
    let mut out = String::new();
    for problem in problems {
        let source = lines.get(problem.at.line.saturating_sub(1)).copied().unwrap_or_default();
        one(&mut out, problem, source_name, source);
    }
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    line(&mut out, format_args!("{count} in {source_name}"));
    out
}

fn one(out: &mut String, problem: &Problem, source_name: &str, source: &str) {
    let number = problem.at.line.to_string();
    let margin = " ".repeat(number.len());
    line(out, format_args!("error: {}", printable(&problem.message)));
    line(out, format_args!("{margin}--> {source_name}:{}:{}", problem.at.line, problem.at.column));
    if !source.trim().is_empty() {
        let (shown, mark) = excerpt(source, problem.at.column);
        line(out, format_args!("{margin} |"));
        line(out, format_args!("{number} | {shown}"));
        line(out, format_args!("{margin} | {mark}"));
    }
    if !problem.path.is_empty() {
        line(out, format_args!("{margin} = at {}", printable(&problem.path)));
    }
    if let Some(suggestion) = &problem.suggestion {
        line(out, format_args!("{margin} = help: {}", printable(suggestion)));
    }
    out.push('\n');
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("invariant: a String takes every text");
}

/// The part of a line around a column, and the mark that goes under it.
fn excerpt(source: &str, column: usize) -> (String, String) {
    let mut chars: Vec<char> = source.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    mask_secrets(&mut chars);
    let at = column.saturating_sub(1).min(chars.len());
    let end = at + token_len(&chars[at..]).max(1);
    let start = if chars.len() <= LINE_CHARS_MAX { 0 } else { at.saturating_sub(LINE_CHARS_MAX / 2) };
    let stop = chars.len().min(start + LINE_CHARS_MAX);
    let (before, after) = (if start > 0 { "…" } else { "" }, if stop < chars.len() { "…" } else { "" });
    let shown: String = chars[start..stop].iter().collect();
    let indent = " ".repeat(at - start + before.chars().count());
    let mark = "^".repeat(end.min(stop.max(at + 1)) - at);
    (format!("{before}{}{after}", shown.trim_end()), format!("{indent}{mark}"))
}

/// How long the word, the quoted text or the bracket is that begins here.
fn token_len(chars: &[char]) -> usize {
    match chars.first() {
        None => 0,
        Some(quote @ ('"' | '\'')) => {
            let close = chars.iter().skip(1).position(|c| c == quote);
            close.map_or(chars.len(), |close| close + 2)
        }
        Some('{' | '[' | '|' | '>' | '-') => 1,
        Some(_) => {
            let ends = |index: usize, c: char| {
                c.is_whitespace()
                    || matches!(c, ',' | '}' | ']')
                    || (c == ':' && chars.get(index + 1).is_none_or(|next| next.is_whitespace()))
            };
            chars.iter().enumerate().position(|(index, c)| ends(index, *c)).unwrap_or(chars.len())
        }
    }
}

/// Stars in place of what may be a secret: values of keys that sound like it, and passwords in URLs. Stars keep
/// the columns.
fn mask_secrets(chars: &mut [char]) {
    let text: String = chars.iter().collect();
    let lower = text.to_ascii_lowercase().replace('-', "_");
    for word in SECRET_WORDS {
        for (byte, _) in lower.match_indices(word) {
            let after = text[..byte + word.len()].chars().count();
            mask_value(chars, after);
        }
    }
    for (byte, _) in lower.match_indices("://") {
        let from = text[..byte + 3].chars().count();
        let ends = |c: &char| c.is_whitespace() || matches!(c, '/' | '"' | '\'' | ',' | '}');
        let to = chars[from..].iter().position(ends).map_or(chars.len(), |end| from + end);
        if let Some(sign) = chars[from..to].iter().rposition(|c| *c == '@') {
            stars(&mut chars[from..from + sign]);
        }
    }
}

/// Masks the value after a key that ends at `from` or a little later. A path or a variable is no secret.
fn mask_value(chars: &mut [char], from: usize) {
    let is_key = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | '"' | '\'' | ' ');
    let Some(colon) = chars[from..].iter().position(|c| !is_key(c)).map(|index| from + index) else { return };
    let rest_of_key: String = chars[from..colon].iter().collect();
    if chars[colon] != ':' || rest_of_key.trim_end_matches(['"', '\'', ' ']).ends_with("_file") {
        return;
    }
    let Some(start) = chars[colon + 1..].iter().position(|c| *c != ' ').map(|index| colon + 1 + index) else {
        return;
    };
    let value = &chars[start..];
    let len = match value[0] {
        '"' | '\'' => token_len(value),
        _ => value.iter().position(|c| matches!(c, ',' | '}' | '#')).unwrap_or(value.len()),
    };
    let quotes = usize::from(matches!(value[0], '"' | '\'') && len >= 2);
    let inner = start + quotes..(start + len).saturating_sub(quotes).max(start + quotes);
    if !chars[inner.clone()].starts_with(&['$', '{']) {
        stars(&mut chars[inner]);
    }
}

fn stars(chars: &mut [char]) {
    for c in chars {
        if *c != ' ' {
            *c = '*';
        }
    }
}

/// The text without what a terminal would act on, and not too much of it.
fn printable(text: &str) -> String {
    let mut shown: String =
        text.chars().take(TEXT_CHARS_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(TEXT_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use millrace_core::settings::Location;

    use super::*;

    fn problem(line: usize, column: usize, message: &str) -> Problem {
        Problem {
            at: Location { line, column },
            path: "a.b".into(),
            message: message.into(),
            suggestion: None,
        }
    }

    #[test]
    fn the_mark_stands_under_the_word() {
        let text = "x: 1\n\tü: { key: \"a b\", other: 5 }\n";
        let rendered = render(&[problem(2, 12, "wrong"), problem(2, 19, "also")], "f.yaml", text);
        let expected = "\
error: wrong
 --> f.yaml:2:12
  |
2 |  ü: { key: \"a b\", other: 5 }
  |            ^^^^^
  = at a.b

error: also
 --> f.yaml:2:19
  |
2 |  ü: { key: \"a b\", other: 5 }
  |                   ^^^^^
  = at a.b

2 problems in f.yaml
";
        assert_eq!(rendered.replace(" \n", "\n"), expected);
    }

    #[test]
    fn secrets_in_the_line_are_masked() {
        let shown = |line: &str| excerpt(line, 1).0;
        assert_eq!(shown("password: hunter2"), "password: *******");
        assert_eq!(shown("{ password: 'hun ter2', x: 1 }"), "{ password: '*** ****', x: 1 }");
        assert_eq!(shown("\"signing_secret\": abc # note"), "\"signing_secret\": *** # note");
        assert_eq!(
            shown("{ Authorization: \"Bearer abc\", x: 1 }"),
            "{ Authorization: \"****** ***\", x: 1 }"
        );
        assert_eq!(shown("X-Api-Key: abc, x: 1"), "X-Api-Key: ***, x: 1");
        assert_eq!(shown("url: redis://me:pw@host/0"), "url: redis://*****@host/0");
        for open in [
            "password_file: secrets/pw",
            "password: \"${PW}\"",
            "url: redis://host:1/",
            "password:",
            "secret",
        ] {
            assert_eq!(shown(open), open);
        }
    }

    #[test]
    fn long_lines_and_control_characters_are_tamed() {
        let long = format!("{}wrong: 1{}", "x ".repeat(500), " y".repeat(500));
        let (shown, mark) = excerpt(&long, 1001);
        assert!(shown.chars().count() <= LINE_CHARS_MAX + 2);
        let under: String = shown.chars().skip(mark.find('^').unwrap_or_default()).take(5).collect();
        assert_eq!((under.as_str(), mark.trim()), ("wrong", "^^^^^"));
        let rendered = render(&[problem(9, 9, &"\u{1b}[31m".repeat(1000))], "f", "");
        assert!(!rendered.contains('\u{1b}') && rendered.len() < 3_000);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn never_panics(text in "(\\PC|[\\n\\t \"':{}@/]|password|secret){0,60}", line in 0usize..6, column in 0usize..80) {
            let _ = render(&[problem(line, column, &text)], "f", &text);
        }
    }
}
