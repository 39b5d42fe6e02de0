//! Which events pass.

use std::collections::BTreeMap;

use event::{Error, Event, Params};

/// The parameters.
#[derive(Debug)]
pub struct Settings {
    hide: Vec<String>,
}

impl Settings {
    /// Reads `hide`, a comma-separated list of visibilities.
    pub fn new(params: BTreeMap<String, String>) -> Result<Self, Error> {
        let params = Params::new(params, &["hide"])?;
        let hide = params.list("hide", "PRIVATE")?.into_iter().map(str::to_owned).collect();
        Ok(Self { hide })
    }

    /// Whether the event passes. One without a visibility does: an update or a delete must reach what it corrects.
    pub fn passes(&self, value: &[u8]) -> Result<bool, Error> {
        let event = Event::parse(value)?;
        if event.payload.raw().is_none() {
            return Ok(true);
        }
        let [visibility] = event.payload.pick("payload", ["visibility"])?;
        let visibility = visibility.optional_text()?;
        Ok(visibility.is_none_or(|visibility| !self.hide.iter().any(|hidden| *hidden == visibility)))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn passes(hide: Option<&str>, value: &str) -> Result<bool, String> {
        let params = hide.map(|hide| ("hide".to_owned(), hide.to_owned())).into_iter().collect();
        Settings::new(params).unwrap().passes(value.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn private_posts_are_hidden_by_default() {
        assert_eq!(passes(None, r#"{"payload":{"visibility":"PRIVATE"}}"#), Ok(false));
        assert_eq!(passes(None, r#"{"payload":{"visibility":"\u0050RIVATE"}}"#), Ok(false));
        assert_eq!(passes(None, r#"{"payload":{"visibility":"PUBLIC"}}"#), Ok(true));
        assert_eq!(passes(None, r#"{"payload":{"visibility":"private"}}"#), Ok(true));
    }

    #[test]
    fn events_without_a_visibility_pass() {
        for value in ["{}", r#"{"payload":null}"#, r#"{"payload":{}}"#, r#"{"payload":{"visibility":null}}"#]
        {
            assert_eq!(passes(None, value), Ok(true), "{value}");
        }
    }

    #[test]
    fn the_list_replaces_the_default() {
        let list = Some("PRIVATE, FOLLOWERS_ONLY");
        assert_eq!(passes(list, r#"{"payload":{"visibility":"FOLLOWERS_ONLY"}}"#), Ok(false));
        assert_eq!(passes(Some(""), r#"{"payload":{"visibility":"PRIVATE"}}"#), Ok(true));
    }

    #[test]
    fn wrong_types_are_errors() {
        let text = Err("payload.visibility must be a non-empty string".to_owned());
        assert_eq!(passes(None, r#"{"payload":{"visibility":3}}"#), text);
        assert_eq!(passes(None, r#"{"payload":{"visibility":["PRIVATE"]}}"#), text);
        assert_eq!(passes(None, r#"{"payload":{"visibility":""}}"#), text);
        assert_eq!(passes(None, r#"{"payload":"x"}"#), Err("payload must be a JSON object".into()));
        assert_eq!(
            passes(None, r#"{"payload":{"visibility":"PUBLIC","visibility":"PRIVATE"}}"#),
            Err("payload.visibility is there twice".into())
        );
        assert_eq!(passes(None, ""), Err("event must be a JSON object".into()));
    }

    #[test]
    fn the_parameters_are_those_of_its_description() {
        let description = include_str!("../SmartModule.toml");
        let names: Vec<_> =
            description.split("[[params]]").skip(1).filter_map(|p| p.split('"').nth(1)).collect();
        let error = Settings::new(BTreeMap::from([("?".to_owned(), String::new())])).unwrap_err().to_string();
        assert_eq!(error, format!("unknown parameter `?`, known are {}", names.join(", ")));
    }
}
