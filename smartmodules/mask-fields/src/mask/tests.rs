//! What is masked, what stays as it is, and what is refused.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn make(params: &[(&str, &str)]) -> Result<Settings, String> {
    let params = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Settings::new(params).map_err(|e| e.to_string())
}

fn run(fields: &str, value: &str) -> Result<String, String> {
    let out = make(&[("fields", fields)]).unwrap().masked(value.as_bytes()).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn values_of_every_type_are_masked() {
    for value in ["1.5e-7", "\"s\\\"}\"", "null", "true", "{\"a\":[{}]}", "[1,{\"b\":\"]\"}]", "\"\"", "{}"] {
        let event = format!(r#"{{"a":{value},"b" : {value} }}"#);
        assert_eq!(run("a", &event), Ok(format!(r#"{{"a":"***","b" : {value} }}"#)));
        assert_eq!(run("b", &event), Ok(format!(r#"{{"a":{value},"b" : "***" }}"#)));
        assert_eq!(run("a,b", &event), Ok(r#"{"a":"***","b" : "***" }"#.into()));
    }
}

#[test]
fn everything_else_keeps_its_bytes() {
    let event = " {\"n\":123456789012345678901234567890.10, \"z\":1,\"a\":{ \"password\" :\"x\" },\n\"e\":\"\\u0041\"} ";
    assert_eq!(run("nothing,a.b.c,n.m,z.z", event), Ok(event.into()));
    assert_eq!(run("a.password", event), Ok(event.replace("\"x\"", "\"***\"")));
}

#[test]
fn arrays_are_walked() {
    let event = r#"{"items":[{"card":1,"id":1},[{"card":[2]}],3,"card",[]],"card":4}"#;
    let want = r#"{"items":[{"card":"***","id":1},[{"card":"***"}],3,"card",[]],"card":4}"#;
    assert_eq!(run("items.card", event), Ok(want.into()));
}

#[test]
fn names_are_compared_decoded_and_whole() {
    assert_eq!(
        run("key", r#"{"k\u0065y":1,"keys":2,"Key":3}"#),
        Ok(r#"{"k\u0065y":"***","keys":2,"Key":3}"#.into())
    );
    assert_eq!(run("a\"b", r#"{"a\"b":1}"#), Ok(r#"{"a\"b":"***"}"#.into()));
    assert_eq!(run("a", r#"{"a":1,"a":2}"#), Ok(r#"{"a":"***","a":"***"}"#.into()));
}

#[test]
fn the_shorter_of_two_paths_wins() {
    assert_eq!(run("a.b,a", r#"{"a":{"b":1}}"#), Ok(r#"{"a":"***"}"#.into()));
    assert_eq!(
        run("a.b,a.c", r#"{"a":{"b":1,"c":2,"d":3}}"#),
        Ok(r#"{"a":{"b":"***","c":"***","d":3}}"#.into())
    );
}

#[test]
fn the_mask_is_any_text() {
    let settings = make(&[("fields", "a"), ("mask", "\"x\"")]).unwrap();
    assert_eq!(settings.masked(br#"{"a":1}"#).unwrap(), br#"{"a":"\"x\""}"#);
    let settings = make(&[("fields", "a"), ("mask", "")]).unwrap();
    assert_eq!(settings.masked(br#"{"a":1}"#).unwrap(), br#"{"a":""}"#);
}

#[test]
fn deep_nesting_costs_no_call_stack() {
    let deep = |inner: &str| format!("{{\"a\":{}{inner}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(run("a.b", &deep("{\"b\":1}")), Ok(deep("{\"b\":\"***\"}")));
    assert_eq!(run("b", &deep("")), Ok(deep("")));
}

#[test]
fn what_is_no_event_is_refused() {
    assert_eq!(run("a", "[{\"a\":1}]"), Err("event must be a JSON object".into()));
    assert_eq!(run("a", "{\"a\":1"), Err("event is not valid JSON at line 1 column 6".into()));
    let error = make(&[("fields", "a")]).unwrap().masked(b"{\"a\":\"\xff\"}").unwrap_err();
    assert_eq!(error.to_string(), "event is not UTF-8 at byte 6");
}

#[test]
fn bad_parameters_are_refused() {
    assert_eq!(make(&[]).unwrap_err(), "parameter `fields` is missing");
    assert_eq!(make(&[("fields", " ")]).unwrap_err(), "parameter `fields` is empty");
    assert_eq!(make(&[("fields", "a,,b")]).unwrap_err(), "parameter `fields` has an empty item");
    assert_eq!(make(&[("fields", "a..b")]).unwrap_err(), "parameter `fields` has a path with an empty name");
    assert_eq!(make(&[("field", "a")]).unwrap_err(), "unknown parameter `field`, known are fields, mask");
}

#[test]
fn the_parameters_are_those_of_its_description() {
    let description = include_str!("../../SmartModule.toml");
    let names: Vec<_> = description.split("[[params]]").skip(1).filter_map(|p| p.split('"').nth(1)).collect();
    let error = Settings::new(BTreeMap::from([("?".to_owned(), String::new())])).unwrap_err().to_string();
    assert_eq!(error, format!("unknown parameter `?`, known are {}", names.join(", ")));
}
