//! A pipeline is restarted when something it depends on has changed, and for nothing else.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use millrace_config::{Catalog, SinkKind};
use millrace_core::{
    module_info::ShippedModule,
    settings::{Field, Kind, Object, Shape},
};
use millrace_state::{FileState, dependencies};

static BROKER: Object =
    Object { name: "log", doc: "", fields: &[Field::optional("at", Shape::Text, "where it is")] };
static LOG: Kind = Kind { name: "log", settings: &BROKER };

const FILE: &str = "version: 1
brokers:
  main: { log: { at: a } }
  other: { log: { at: b } }
topics:
  in: { broker: main }
  one: { broker: main }
  two: { broker: other }
  more: { broker: other }
pipelines:
  first:
    from: { topic: in, format: bytes }
    steps: [{ id: s, uses: shout }]
    to: { out: { topic: { topic: one } } }
  second:
    from: { topic: in, format: bytes }
    to: { out: { topic: { topic: two } } }
";

/// What both pipelines depend on, in a file and with this digest of their module.
fn of(text: &str, digest: &str) -> [String; 2] {
    let module = ShippedModule { name: "shout", doc: "", wasm: &[], params: &[], output_fields: None };
    let catalog = Catalog {
        brokers: vec![&LOG],
        sinks: SinkKind::builtin(),
        modules: vec![module],
        ..Catalog::default()
    };
    let variable = |name: &str| Some(format!("value of {name}"));
    let plan = millrace_config::load("test", text, Path::new("."), &variable, &catalog).unwrap();
    let modules = ["shout", "own@1.1.0"].map(|name| (name.to_owned(), digest.to_owned())).into();
    let file = FileState::new(text.to_owned(), modules, false).unwrap();
    ["first", "second"].map(|name| dependencies(&file, &plan.pipelines[name]))
}

#[test]
fn what_has_changed_restarts_those_that_depend_on_it() {
    let before = of(FILE, "1");
    let changed = |from: &str, to: &str| {
        assert!(FILE.contains(from));
        let after = of(&FILE.replace(from, to), "1");
        [after[0] != before[0], after[1] != before[1]]
    };
    assert_eq!(changed("version: 1", "# a comment\nversion: 1"), [false, false]);
    assert_eq!(changed("in: { broker: main }", "in: {  broker:  main }"), [false, false]);
    assert_eq!(changed("more: { broker: other }", "more: { broker: other, partitions: 7 }"), [false, false]);
    assert_eq!(changed("{ at: a }", "{ at: c }"), [true, true], "both read from it");
    assert_eq!(changed("{ at: b }", "{ at: c }"), [false, true]);
    assert_eq!(changed("in: { broker: main }", "in: { broker: main, retention: 1d }"), [true, true]);
    assert_eq!(changed("two: { broker: other }", "two: { broker: other, retention: 1d }"), [false, true]);
    assert_eq!(changed("uses: shout }", "uses: shout, limits: { timeout: 2s } }"), [true, false]);
    let other_module = of(FILE, "2");
    assert_eq!([other_module[0] != before[0], other_module[1] != before[1]], [true, false]);
}

/// What a variable holds is in none of it.
#[test]
fn variables_count_by_their_names() {
    let named = FILE.replace("{ at: b }", "{ at: \"${PLACE}\" }");
    let other = FILE.replace("{ at: b }", "{ at: \"${OTHER}\" }");
    assert_eq!(of(&named, "1"), of(&named, "1"));
    assert_ne!(of(&named, "1")[1], of(&other, "1")[1]);
}

/// A pipeline that runs takes up other versions of deployed modules.
#[test]
fn versions_of_deployed_modules_restart_nothing() {
    let own = FILE.replace("uses: shout }", "uses: own@1.0.0 }");
    let before = of(&own, "1");
    assert_eq!(of(&own.replace("own@1.0.0", "own@1.1.0"), "1"), before);
    assert_eq!(of(&own.replace("own@1.0.0", "own@latest"), "1"), before);
    assert_ne!(of(&own.replace("own@1.0.0", "other@1.0.0"), "1")[0], before[0], "another module");
    assert_ne!(of(&own.replace("own@1.0.0 }", "own@1.0.0, with: { a: b@1 } }"), "1")[0], before[0]);
    let entry = |registry: &str| {
        of(
            &format!(
                "smartmodules: {{ mine: {{ registry: {registry} }} }}\n{}",
                own.replace("own@1.0.0", "mine")
            ),
            "1",
        )
    };
    assert_eq!(entry("own@1.0.0"), entry("own@1.1.0"));
    assert_ne!(entry("own@1.0.0")[0], entry("other@1.0.0")[0]);
}

#[test]
fn a_trial_that_changes_restarts_its_pipeline() {
    let with = |more: &str| FILE.replace("uses: shout }", &format!("uses: own@1.0.0{more} }}"));
    let (alone, tried) = (of(&with(""), "1"), of(&with(", shadow: { version: 1.1.0 }"), "1"));
    assert_eq!([tried[0] != alone[0], tried[1] != alone[1]], [true, false], "it begins");
    assert_ne!(of(&with(", shadow: { version: 1.2.0 }"), "1")[0], tried[0], "another version");
    assert_ne!(of(&with(", canary: { version: 1.1.0, share: 5% }"), "1")[0], tried[0], "another manner");
    assert_ne!(of(&with(", shadow: { version: 1.1.0 }"), "2")[0], tried[0], "other code");
    assert_eq!(of(&with(""), "2")[0], alone[0]);
}
