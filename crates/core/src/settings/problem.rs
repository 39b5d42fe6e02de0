//! A mistake in a configuration: where, what, and what was probably meant.

use super::node::Location;

/// A hostile file must not make more problems than memory holds; nobody reads more of them either.
const PROBLEMS_MAX: usize = 1_000;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it stands.
    pub at: Location,
    /// The keys that lead there: `pipelines.home-feed.steps[1].lookup`.
    pub path: String,
    /// What is wrong, lowercase, without a full stop.
    pub message: String,
    /// What to do about it.
    pub suggestion: Option<String>,
}

/// All mistakes found so far, at most 1,000. A check goes on after a mistake, so that one run shows them all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// Adds a mistake.
    pub fn add(&mut self, at: Location, path: &str, message: impl Into<String>) {
        self.push(at, path, message.into(), None);
    }

    /// Adds a mistake with advice.
    pub fn suggest(
        &mut self,
        at: Location,
        path: &str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.push(at, path, message.into(), Some(advice.into()));
    }

    fn push(&mut self, at: Location, path: &str, message: String, suggestion: Option<String>) {
        if self.list.len() >= PROBLEMS_MAX {
            return;
        }
        self.list.push(Problem { at, path: path.to_owned(), message, suggestion });
    }

    /// Adds all of `other`'s.
    pub fn append(&mut self, other: Problems) {
        for problem in other.list {
            self.push(problem.at, &problem.path, problem.message, problem.suggestion);
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// In the order of the file, each once.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.list.sort();
        self.list.dedup();
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_sorted_each_once_and_not_too_many() {
        let mut problems = Problems::default();
        for line in (0..2_000).rev() {
            problems.add(Location { line: line / 2, column: 1 }, "a", "wrong");
        }
        let mut more = Problems::default();
        more.append(problems);
        let list = more.into_sorted();
        assert_eq!(list.len(), 500);
        assert!(list.is_sorted());
    }
}
