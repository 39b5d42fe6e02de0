//! Where the state lies, as one line: `kafka://host:9092,other:9092?group_prefix=shop.` or `embedded:DIR`.

/// A broker, by its kind's name and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `kafka` or `embedded`.
    pub kind: String,
    /// As they would stand in a pipeline file.
    pub settings: Vec<(String, String)>,
}

/// Reads such a line.
///
/// # Errors
/// What is wrong with it, without what it holds.
pub fn address(text: &str) -> Result<Address, String> {
    let expected = "expected 'kafka://HOST:PORT,…?SETTING=VALUE&…' or 'embedded:DIR'";
    if let Some(dir) = text.strip_prefix("embedded:") {
        let dir = dir.strip_prefix("//").unwrap_or(dir);
        let dir = if dir.is_empty() { ".millrace" } else { dir };
        return Ok(Address {
            kind: "embedded".to_owned(),
            settings: vec![("dir".to_owned(), dir.to_owned())],
        });
    }
    let rest = text.strip_prefix("kafka://").ok_or(expected)?;
    let (hosts, query) = rest.split_once('?').unwrap_or((rest, ""));
    let hosts = hosts.trim_end_matches('/');
    if hosts.is_empty() {
        return Err(expected.to_owned());
    }
    if hosts.contains('@') {
        return Err(
            "a login does not stand in the address: write '?username=NAME&password_file=FILE'".to_owned()
        );
    }
    let mut settings = vec![("bootstrap".to_owned(), hosts.to_owned())];
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if settings.iter().any(|(known, _)| *known == *key) {
            return Err(format!("the setting '{}' stands twice", key.escape_debug()));
        }
        settings.push((key.into_owned(), value.into_owned()));
    }
    Ok(Address { kind: "kafka".to_owned(), settings })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn settings(text: &str) -> Vec<String> {
        let Address { kind, settings } = address(text).unwrap();
        let pairs = settings.iter().map(|(key, value)| format!("{key}={value}"));
        std::iter::once(kind).chain(pairs).collect()
    }

    #[test]
    fn brokers_are_named_in_one_line() {
        assert_eq!(settings("embedded:/var/lib/millrace"), ["embedded", "dir=/var/lib/millrace"]);
        assert_eq!(settings("embedded:"), ["embedded", "dir=.millrace"]);
        assert_eq!(
            settings("kafka://a:9092,b:9092?group_prefix=shop.&password_file=%2Frun%2Fp"),
            ["kafka", "bootstrap=a:9092,b:9092", "group_prefix=shop.", "password_file=/run/p"]
        );
        for wrong in
            ["", "redis://a", "kafka://", "kafka://u:secret@a", "kafka://a?x=1&x=2", "kafka://a?bootstrap=b"]
        {
            let problem = address(wrong).unwrap_err();
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
