//! Full text: which words a document has, and which query a text asked for makes.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Value, value::RawValue};

/// A query has at most this many words; further ones are not looked for.
const WORDS_MAX: usize = 64;

/// The query that finds documents with all words of a text; none where there is no word. The words are quoted, so
/// that nothing in them is an operator.
pub(crate) fn query_of(text: &str) -> Option<String> {
    let between = |c: char| c.is_whitespace() || c.is_control();
    let words = text.split(between).filter(|word| word.chars().any(char::is_alphanumeric));
    let quoted: Vec<String> =
        words.take(WORDS_MAX).map(|word| format!("\"{}\"", word.replace('"', "\"\""))).collect();
    (!quoted.is_empty()).then(|| quoted.join(" "))
}

/// The texts of a document's fields, in their order. A field is found by its whole name, else by the path that
/// its dots make.
pub(crate) fn texts_of(json: &str, fields: &[String]) -> Vec<Option<String>> {
    let object = object(json);
    fields.iter().map(|field| object.as_ref().and_then(|object| text_at(object, field))).collect()
}

type Object<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn object(json: &str) -> Option<Object<'_>> {
    serde_json::from_str(json).ok()
}

fn text_at(object: &Object<'_>, field: &str) -> Option<String> {
    if let Some(raw) = object.get(field) {
        let mut text = String::new();
        collect(&serde_json::from_str(raw.get()).ok()?, &mut text);
        return (!text.is_empty()).then_some(text);
    }
    let (first, rest) = field.split_once('.')?;
    text_at(&self::object(object.get(first)?.get())?, rest)
}

/// Scalars as they are, lists item by item; an object has no text.
fn collect(value: &Value, text: &mut String) {
    let mut add = |word: &str| {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(word);
    };
    match value {
        Value::String(word) => add(word),
        Value::Number(number) => add(&number.to_string()),
        Value::Bool(flag) => add(if *flag { "true" } else { "false" }),
        Value::Array(items) => items.iter().for_each(|item| collect(item, text)),
        Value::Null | Value::Object(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_and_signs_alone_are_none() {
        let quoted = query_of("good* OR \"coffee\" NEAR(a b) \u{0} title:x - ^");
        assert_eq!(quoted.as_deref(), Some(r#""good*" "OR" """coffee""" "NEAR(a" "b)" "title:x""#));
        assert_eq!(query_of(" *-\" ( \n"), None);
        assert_eq!(query_of(&"a ".repeat(10_000)).map(|query| query.len()), Some(WORDS_MAX * 4 - 1));
    }

    #[test]
    fn texts_are_found_by_name_and_by_path() {
        let json = r#"{"title":"a \"b\"","tags":["x",["y",1],{"z":2}],"meta":{"title":"deep"},"a.b":"dot","n":null,"huge":1e999}"#;
        let fields =
            ["title", "tags", "meta.title", "a.b", "n", "huge", "none", "title.x"].map(str::to_owned);
        let texts = texts_of(json, &fields);
        let expected = [Some("a \"b\""), Some("x\ny\n1"), Some("deep"), Some("dot"), None, None, None, None];
        assert_eq!(texts.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        assert_eq!(texts_of("[1]", &fields[..1]), [None]);
    }
}
