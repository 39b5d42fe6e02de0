//! A filter that drops a record whose key it has seen among the last `count` (its value where it has no key), and
//! fills that memory by `look_back` from the records before the position.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use fluvio_smartmodule::dataplane::smartmodule::{SmartModuleExtraParams, SmartModuleInitError};
use fluvio_smartmodule::{Result, SmartModuleRecord, eyre, smartmodule};

static WINDOW: Mutex<Window> = Mutex::new(Window::new());

/// The last records seen, oldest first.
struct Window {
    count_max: usize,
    order: VecDeque<Vec<u8>>,
    seen: BTreeSet<Vec<u8>>,
}

impl Window {
    const fn new() -> Self {
        Self { count_max: 0, order: VecDeque::new(), seen: BTreeSet::new() }
    }

    /// Remembers the record; whether it is new.
    fn insert(&mut self, record: &SmartModuleRecord) -> bool {
        let identity = record.key().unwrap_or(record.value()).as_ref().to_vec();
        if !self.seen.insert(identity.clone()) {
            return false;
        }
        self.order.push_back(identity);
        if self.order.len() > self.count_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}

/// Reads `count`, the number of records to remember.
#[smartmodule(init)]
fn init(params: SmartModuleExtraParams) -> Result<()> {
    let count = params.get("count").ok_or_else(|| SmartModuleInitError::MissingParam("count".into()))?;
    let count_max = count.parse().ok().filter(|count| (1..=100_000).contains(count));
    WINDOW.lock().unwrap_or_else(PoisonError::into_inner).count_max =
        count_max.ok_or_else(|| eyre!("parameter `count` is not an integer from 1 to 100000"))?;
    Ok(())
}

/// Remembers a record from before the position. One whose value is `refuse` is an error, for tests of the host.
#[smartmodule(look_back)]
pub fn look_back(record: &SmartModuleRecord) -> Result<()> {
    if record.value.as_ref() == b"refuse" {
        return Err(eyre!("refused to look back"));
    }
    WINDOW.lock().unwrap_or_else(PoisonError::into_inner).insert(record);
    Ok(())
}

/// Keeps a record that is not among the last.
#[smartmodule(filter)]
pub fn filter(record: &SmartModuleRecord) -> Result<bool> {
    Ok(WINDOW.lock().unwrap_or_else(PoisonError::into_inner).insert(record))
}
