//! The embedded log on a full disk: appends and pipelines wait for space, and nothing is lost or half written.

use std::{
    fmt::Write,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    likes,
    support::{
        millrace::Millrace,
        servers::{Embedded, World},
    },
};

const LIKES: u64 = 6_000;

/// A small disk of its own, in a name space of its own; what is in it in the end is copied out. Each program must first
/// say that the disk is full, then is given space, and must end well.
const SCRIPT: &str = r#"
set -eu
mkdir small
mount -t tmpfs -o size=1m none small
wait_for() {
  tries=0
  until grep -q 'the disk is full' "$1"; do
    tries=$((tries + 1)); [ $tries -lt 600 ] || { echo "never full: $1"; cat "$1"; exit 1; }
    sleep 0.1
  done
}
"$MILLRACE" topic create --all --embedded=small/log
"$MILLRACE" topic produce disk-likes --key payload.author_id --file likes.ndjson --embedded=small/log 2>produce.log &
wait_for produce.log
mount -o remount,size=64m none small
wait $! || { cat produce.log; exit 1; }
head -c 300k /dev/zero >small/spare
dd if=/dev/zero bs=4k of=small/filler 2>/dev/null || true
rm small/spare
MILLRACE_LOG=info "$MILLRACE" run --until-end --listen off --embedded=small/log 2>run.log &
wait_for run.log
rm small/filler
wait $! || { cat run.log; exit 1; }
cp -r small/log kept
"#;

#[test]
fn a_full_disk_is_waited_for() {
    let millrace = Millrace::new();
    millrace.write("pipelines.yaml", likes::pipelines("disk-", 3));
    let mut lines = String::new();
    for number in 0..LIKES {
        writeln!(lines, "{}", likes::line(number)).unwrap();
    }
    millrace.write("likes.ndjson", lines);
    millrace.write("script.sh", SCRIPT);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "script.sh"]).current_dir(millrace.path());
    command.env("MILLRACE", env!("CARGO_BIN_EXE_millrace")).env("HOME", millrace.path()).stdin(Stdio::null());
    let output = command.output().expect("unshare (util-linux) runs");
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
    assert!(output.status.success(), "{said}");
    let kept = millrace.path().join("kept");
    let mut views = Embedded::open(&kept);
    let mut counted = 0;
    for number in 0..LIKES {
        if (0..number).all(|before| likes::author(before) != likes::author(number)) {
            counted += views.unread(&likes::author(number)).expect("a counter");
        }
    }
    assert_eq!(counted, LIKES as i64);
    let tail =
        ["topic", "tail", "disk-copies", "--from", "beginning", "--until-end", "--json", "--embedded=kept"];
    let mut copies: Vec<u64> = Vec::new();
    for line in millrace.ok(&tail).stdout.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let event: Value = serde_json::from_str(record["value"].as_str().unwrap())
            .unwrap_or_else(|_| record["value"].clone());
        copies.push(event["payload"]["number"].as_u64().unwrap_or_else(|| panic!("{line}")));
    }
    copies.sort_unstable();
    copies.dedup();
    assert_eq!(copies.len() as u64, LIKES);
}
