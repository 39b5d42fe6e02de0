//! Both hosts, on every module in each of its builds.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, fs, path::Path};

use conformance::{
    case::{self, Case, Expected, Subject},
    fluvio::Fluvio,
    host::{Answer, Host, Input, Usage},
    millrace::Millrace,
};

fn hosts() -> [Box<dyn Host>; 2] {
    [Box::new(Millrace::start()), Box::new(Fluvio::start())]
}

fn wasm(build: &Path) -> Vec<u8> {
    fs::read(build).unwrap_or_else(|error| panic!("{}: {error}", build.display()))
}

/// Fails with all that differs from what the cases say.
fn hold(subjects: &[Subject], cases_min: usize) {
    let mut differences = Vec::new();
    let mut held = 0;
    for host in hosts() {
        for subject in subjects {
            assert!(subject.builds.len() >= 2, "{}: {:?}", subject.name, subject.builds);
            for build in &subject.builds {
                let wasm = wasm(build);
                for case in &subject.cases {
                    if let Err(difference) = hold_case(host.as_ref(), &wasm, case) {
                        let build = build.file_name().unwrap().display();
                        differences.push(format!("{}, {build}, {}: {difference}", host.name(), case.name));
                    }
                    held += 1;
                }
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(held >= cases_min, "only {held} cases were held to");
}

fn hold_case(host: &dyn Host, wasm: &[u8], case: &Case) -> Result<(), String> {
    let mut guest = match (host.open(wasm, &case.usage()), &case.refused) {
        (Ok(guest), None) => guest,
        (Err(why), Some(words)) if why.contains(words) => return Ok(()),
        (Ok(_), Some(words)) => return Err(format!("opened, but should be refused: {words}")),
        (Err(why), _) => return Err(why),
    };
    let batches = case.batches();
    assert_eq!(batches.len(), case.answers.len(), "{}: an answer for each batch", case.name);
    for (number, (batch, expected)) in batches.iter().zip(&case.answers).enumerate() {
        let answer = guest.call(batch)?;
        compare(&answer, expected, batch).map_err(|difference| format!("batch {number}: {difference}"))?;
    }
    Ok(())
}

fn compare(answer: &Answer, expected: &Expected, batch: &[Input]) -> Result<(), String> {
    match (&answer.error, &expected.error) {
        (None, None) => {}
        (Some((offset, words)), Some(error))
            if error.record.map(|index| batch[index].offset) == Some(*offset)
                && words.contains(&error.hint) => {}
        (error, expected) => {
            let expected = expected.as_ref().map(|error| (error.record, &error.hint));
            return Err(format!("the error is {error:?}, not {expected:?}"));
        }
    }
    if answer.outputs.len() != expected.records.len() {
        return Err(format!("{} outputs, not {}", answer.outputs.len(), expected.records.len()));
    }
    for (index, (output, expected)) in answer.outputs.iter().zip(&expected.records).enumerate() {
        if output.key != expected.key() || !expected.has_value(&output.value) {
            let value = String::from_utf8_lossy(&output.value[..output.value.len().min(200)]).into_owned();
            return Err(format!("output {index} is {value:?}, key {:?}", output.key));
        }
        if let (Some(offset), Some(of)) = (output.offset, expected.of)
            && offset != batch[of].offset
        {
            return Err(format!("output {index} is of offset {offset}, not {}", batch[of].offset));
        }
    }
    Ok(())
}

#[test]
fn the_kits_modules_give_what_their_cases_say() {
    hold(&case::kit(), 5 * 4 * 4);
}

#[test]
fn the_shipped_modules_give_what_their_golden_cases_say() {
    hold(&case::shipped(), 30 * 4);
}

/// Records of all lengths and shapes, the same in each run.
fn generated(count: i64, refusals: bool) -> Vec<Input> {
    let words = ["a", "drop", "split", "where", "empty", "", "unkey", "\u{0}\u{7f}", "ü", "rekey"];
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut offset = 1_000_000_000_000;
    let records = (0..count).map(|index| {
        offset += 1 + i64::try_from(random(3)).unwrap();
        let refused = refusals && index == count / 2;
        let word = if refused { "error" } else { words[random(words.len())] };
        let value = if random(4) == 0 && !refused { word.repeat(random(2_000)) } else { word.to_owned() };
        Input {
            offset,
            timestamp_ms: 1_424_129_760_000 + i64::try_from(random(100_000)).unwrap(),
            key: (random(3) > 0).then(|| vec![b'k'; random(200)]),
            value: value.into_bytes(),
        }
    });
    records.collect()
}

/// What is compared with what: all answers of the first host and build with those of the others.
#[test]
fn large_batches_come_out_byte_for_byte_alike() {
    let hosts = hosts();
    let params = BTreeMap::from([("suffix".to_owned(), "~".to_owned())]);
    let usage = Usage { params, history: None };
    for subject in case::kit() {
        // An aggregate's outputs grow with each record.
        let count = if subject.name == "aggregate" { 60 } else { 700 };
        for refusals in [false, true] {
            let batch = generated(count, refusals);
            let mut first: Option<Answer> = None;
            for (host, build) in
                hosts.iter().flat_map(|host| subject.builds.iter().map(move |build| (host, build)))
            {
                let what = format!("{}, {}", host.name(), build.display());
                let mut guest = host.open(&wasm(build), &usage).unwrap_or_else(|why| panic!("{what}: {why}"));
                let mut answer = guest.call(&batch).unwrap_or_else(|why| panic!("{what}: {why}"));
                assert_eq!(answer.error.is_some(), refusals, "{what}: {:?}", answer.error);
                let first = first.get_or_insert_with(|| answer.clone());
                for (output, reference) in answer.outputs.iter_mut().zip(&first.outputs) {
                    output.offset = output.offset.or(reference.offset);
                }
                assert!(answer == *first, "{what}: the outputs differ");
            }
        }
    }
}
