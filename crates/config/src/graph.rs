//! Pipelines and the topics between them: which come first, and whether they go in a circle.

use std::collections::HashMap;

/// A pipeline as an edge between topics.
pub(crate) struct Flow<'a> {
    pub(crate) pipeline: &'a str,
    pub(crate) reads: &'a str,
    /// Topics of its sinks, and of its dead letters.
    pub(crate) writes: Vec<&'a str>,
}

/// The pipelines' indexes by level, or the circle that keeps some of them from having one: topics and pipelines
/// by turns, beginning and ending with the same topic.
pub(crate) fn levels(flows: &[Flow<'_>]) -> Result<Vec<Vec<usize>>, Vec<String>> {
    let mut writers_left: HashMap<&str, usize> = HashMap::new();
    let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, flow) in flows.iter().enumerate() {
        readers.entry(flow.reads).or_default().push(index);
        for topic in &flow.writes {
            *writers_left.entry(topic).or_default() += 1;
        }
    }
    let free = |flow: &Flow<'_>, left: &HashMap<&str, usize>| left.get(flow.reads).is_none_or(|n| *n == 0);
    let mut placed = vec![false; flows.len()];
    let mut levels = Vec::new();
    let mut level: Vec<usize> = (0..flows.len()).filter(|i| free(&flows[*i], &writers_left)).collect();
    while !level.is_empty() {
        let mut next = Vec::new();
        for index in &level {
            placed[*index] = true;
            for topic in &flows[*index].writes {
                let left = writers_left.entry(topic).or_default();
                *left -= 1;
                if *left == 0 {
                    next.extend(readers.get(topic).into_iter().flatten().copied());
                }
            }
        }
        next.sort_unstable();
        levels.push(std::mem::replace(&mut level, next));
    }
    if placed.iter().all(|placed| *placed) { Ok(levels) } else { Err(circle(flows, &placed)) }
}

/// Every pipeline that has no level reads what another such pipeline writes: going back from one to its writer
/// must come round.
fn circle(flows: &[Flow<'_>], placed: &[bool]) -> Vec<String> {
    let mut writer_of: HashMap<&str, usize> = HashMap::new();
    for (index, flow) in flows.iter().enumerate().filter(|(index, _)| !placed[*index]) {
        for topic in &flow.writes {
            writer_of.entry(topic).or_insert(index);
        }
    }
    let Some(mut at) = placed.iter().position(|placed| !placed) else { return Vec::new() };
    let mut way: Vec<usize> = Vec::new();
    let mut seen = vec![false; flows.len()];
    while !seen[at] {
        seen[at] = true;
        way.push(at);
        let Some(writer) = writer_of.get(flows[at].reads) else { return Vec::new() };
        at = *writer;
    }
    let from = way.iter().position(|index| *index == at).unwrap_or_default();
    let mut names = Vec::new();
    for index in way[from..].iter().rev() {
        names.extend([flows[*index].reads.to_owned(), flows[*index].pipeline.to_owned()]);
    }
    names.extend(names.first().cloned());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow<'a>(pipeline: &'a str, reads: &'a str, writes: &[&'a str]) -> Flow<'a> {
        Flow { pipeline, reads, writes: writes.to_vec() }
    }

    #[test]
    fn writers_come_before_readers() {
        let flows = [
            flow("late", "c", &["d"]),
            flow("early", "a", &["b", "b"]),
            flow("both", "b", &["c"]),
            flow("alone", "x", &[]),
            flow("also", "b", &["c"]),
        ];
        assert_eq!(levels(&flows), Ok(vec![vec![1, 3], vec![2, 4], vec![0]]));
        assert_eq!(levels(&[]), Ok(vec![]));
    }

    #[test]
    fn a_circle_is_named_from_topic_to_topic() {
        let flows = [
            flow("tail", "b", &["z"]),
            flow("there", "a", &["b"]),
            flow("in", "x", &["a"]),
            flow("back", "b", &["a"]),
        ];
        assert_eq!(levels(&flows).map_err(|way| way.join(" ")), Err("b back a there b".to_owned()));
        assert_eq!(
            levels(&[flow("self", "a", &["a"])]).map_err(|way| way.join(" ")),
            Err("a self a".to_owned())
        );
    }
}
