//! The order of states, as the parameter `status` has it: `created=order.order.created.v1,paid=…`.

use event::{Error, Params};

/// States by the event type that leads to them.
#[derive(Debug, Default)]
pub struct Statuses {
    steps: Vec<Step>,
}

/// One state.
#[derive(Debug)]
pub struct Step {
    event_type: String,
    /// Its name.
    pub name: String,
    /// Its place, counted from 1. A name that several event types lead to has one place.
    pub rank: usize,
}

impl Statuses {
    /// Reads the parameter `status`; none where it is not given.
    pub fn new(params: &Params) -> Result<Option<Self>, Error> {
        if params.text("status")?.is_none() {
            return Ok(None);
        }
        let mut steps: Vec<Step> = Vec::new();
        let mut places = 0;
        for item in params.list("status", "")? {
            let (name, event_type) = item
                .split_once('=')
                .map(|(name, event_type)| (name.trim(), event_type.trim()))
                .filter(|(name, event_type)| !name.is_empty() && !event_type.is_empty())
                .ok_or_else(|| Error::param("status", "has an item that is not name=event type"))?;
            if steps.iter().any(|step| step.event_type == event_type) {
                return Err(Error::param("status", "has an event type twice"));
            }
            let known = steps.iter().find(|step| step.name == name).map(|step| step.rank);
            let rank = known.unwrap_or_else(|| {
                places += 1;
                places
            });
            steps.push(Step { event_type: event_type.into(), name: name.into(), rank });
        }
        Ok(Some(Self { steps }))
    }

    /// The state that an event of this type leads to.
    pub fn after(&self, event_type: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.event_type == event_type)
    }
}
