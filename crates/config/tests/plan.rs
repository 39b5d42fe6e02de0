//! What a right file comes to.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::path::Path;

use millrace_config::{
    BreakerPlan, CanaryPart, ExhaustedPolicy, GapPolicy, LookupQuery, ModulePlan, ModuleSource, Output, Plan,
    QuarantinePlan, QuarantinePolicy, RecordFormat, RetryPlan, StepPlan, TrialManner, TrialPlan, load,
    load_embedded,
};
use millrace_core::{View, views::FieldType};
use support::{catalog, env, plan_of};
use tokio::time::Duration;

const REFERENCE: &str = include_str!("../../../pipelines.yaml");

fn reference() -> Plan {
    plan_of(REFERENCE).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_reference_pipelines_make_a_plan() {
    let plan = reference();
    let names: Vec<_> = plan.pipelines.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["follows", "home-feed", "post-summaries", "post-search", "users", "notifications", "orders"]
    );
    let spec = &plan.topics["content-events"].spec;
    assert_eq!(
        (spec.partitions, spec.retention_ms, spec.retention_bytes),
        (6, Some(604_800_000), Some(1 << 30))
    );
    assert_eq!((spec.record_bytes_max, spec.replication), (1 << 20, None));
    assert_eq!(plan.indexes["posts"].fields[2], ("content".to_owned(), FieldType::Text));
    assert_eq!(plan.brokers["main"].settings.text("bootstrap"), Some("localhost:9092"));
}

#[test]
fn steps_and_sinks_are_typed() {
    let plan = reference();
    let feed = &plan.pipelines["home-feed"];
    assert_eq!((feed.from.format, feed.from.on_gap), (RecordFormat::Json, GapPolicy::Stop));
    let [StepPlan::Module(visible), StepPlan::Lookup(lookup), StepPlan::Module(fanout)] =
        feed.steps.as_slice()
    else {
        panic!("{:?}", feed.steps)
    };
    assert_eq!((visible.source.clone(), visible.with["hide"].as_str()), (ModuleSource::Shipped, "PRIVATE"));
    assert_eq!((fanout.limits.memory_bytes, fanout.limits.timeout), (64 << 20, Duration::from_secs(1)));
    let LookupQuery::Members { key, page } = &lookup.query else { panic!("{:?}", lookup.query) };
    assert_eq!((key.source(), *page), ("followers:{payload.user_id}", 1000));
    assert_eq!((lookup.cache_ttl, lookup.cache_entries), (Duration::from_secs(5), 10_000));
    assert_eq!(feed.remembers, Some(Duration::from_secs(30 * 86_400)));
    let guard = lookup.guard.as_ref().unwrap();
    assert_eq!((guard.closed_by.len(), guard.ledger), (1, Duration::from_secs(30 * 86_400)));
    let sink = &feed.sinks[0];
    assert_eq!(
        (sink.id.as_str(), sink.kind_name, sink.store.as_deref()),
        ("feeds", "timeline", Some("feeds"))
    );
    let Output::View(View::Timeline(timeline)) = &sink.output else { panic!("{:?}", sink.output) };
    assert_eq!((timeline.keep, timeline.stored_max), (800, 1000));
    assert_eq!((feed.batch.records, feed.batch.bytes), (1000, 1 << 20));
    assert_eq!(feed.retry.max, Duration::from_secs(30));
    assert!(feed.send_timeout <= feed.drain_timeout);
}

const POLICIES: &str = r#"
version: 1
brokers: { main: { kafka: { bootstrap: x } } }
stores: { feeds: { redis: { url: x }, breaker: { failures: 2, open_for: 100ms } } }
topics: { a: { broker: main } }
pipelines:
  p:
    from: { topic: a }
    retry: { initial: 1s, budget: 10m, exhausted: dead_letters }
    to:
      plain: { stdout: {} }
      own: { stdout: {}, isolated: true, retry: { max: 2s, exhausted: pause }, breaker: { failures: 1 } }
    dead_letters: { per_minute_max: 10 }
"#;

#[test]
fn failure_policies_are_typed_and_sinks_take_the_pipelines() {
    let plan = plan_of(POLICIES).unwrap();
    let seconds = Duration::from_secs;
    let breaker = |failures, open_for| BreakerPlan { failures, open_for, open_for_max: seconds(30) };
    assert_eq!(plan.brokers["main"].breaker, breaker(5, seconds(1)));
    assert_eq!(plan.stores["feeds"].breaker, breaker(2, Duration::from_millis(100)));
    let pipeline = &plan.pipelines["p"];
    let [plain, own] = pipeline.sinks.as_slice() else { panic!("{:?}", pipeline.sinks) };
    let retry = RetryPlan {
        initial: seconds(1),
        max: seconds(30),
        budget: Some(seconds(600)),
        exhausted: ExhaustedPolicy::DeadLetters,
    };
    assert_eq!((pipeline.retry, plain.retry, plain.isolated), (retry, retry, false));
    let retry = RetryPlan { max: seconds(2), exhausted: ExhaustedPolicy::Pause, ..retry };
    assert_eq!((own.retry, own.isolated, own.breaker), (retry, true, breaker(1, seconds(1))));
    assert_eq!(
        (pipeline.dead_letters_per_minute_max, reference().pipelines[0].dead_letters_per_minute_max),
        (10, 6000)
    );
}

#[test]
fn a_step_says_what_its_module_may_do() {
    let steps = "    steps:
      - { id: a, uses: visible-posts }
      - { id: b, uses: shout@latest, limits: { fuel: 5000000000 }, quarantine: { after: 5, then: previous } }
    retry:";
    let plan = plan_of(&POLICIES.replace("    retry:", steps)).unwrap();
    let modules: Vec<_> = plan.pipelines["p"].modules().collect();
    let quarantine = |after, then| QuarantinePlan { after, then };
    assert_eq!(modules[0].quarantine, quarantine(1_000, QuarantinePolicy::Stop));
    assert_eq!(modules[1].quarantine, quarantine(5, QuarantinePolicy::Previous));
    assert_eq!((modules[0].limits.fuel, modules[1].limits.fuel), (None, Some(5_000_000_000)));
}

#[test]
fn pipelines_share_a_topic_of_dead_letters() {
    let text = REFERENCE.replacen(
        "    to:\n      followers:",
        "    dead_letters: { retention: 20d }\n    to:\n      followers:",
        1,
    );
    let plan = plan_of(&text).unwrap();
    let days = |name: &str| plan.pipelines[name].dead_letters.retention_ms.unwrap() / 86_400_000;
    assert_eq!((days("follows"), days("notifications"), days("orders")), (20, 20, 14));
    let letters = &plan.pipelines["notifications"].dead_letters;
    assert_eq!((letters.name.as_str(), letters.partitions), ("social-events.dlq", 6));
}

#[test]
fn embedded_replaces_every_system_and_needs_no_variables_of_them() {
    let text = REFERENCE.replace("${KAFKA_BROKERS:-localhost:9092}", "${KAFKA_BROKERS}");
    assert!(plan_of(&text).unwrap_err().contains("the variable 'KAFKA_BROKERS' is not set"));
    let plan =
        load_embedded("p", &text, Path::new("."), &env, &catalog(), Path::new("/var/lib/millrace")).unwrap();
    let kinds: Vec<_> =
        plan.brokers.values().chain(plan.stores.values()).map(|system| system.kind_name).collect();
    assert_eq!(kinds, ["embedded"; 3]);
    let settings = &plan.stores["search"].settings;
    assert_eq!(
        (settings.path(), settings.text("dir")),
        ("stores.search.embedded", Some("/var/lib/millrace"))
    );
    assert_eq!(plan.pipelines.len(), 7);
}

const CHAIN: &str = r#"
version: 1
brokers: { main: { kafka: { bootstrap: x, password_file: secrets/kafka } }, log: { embedded: { dir: "${WORD}" } } }
stores: { feeds: { redis: { url: x, pool: "${FIVE}", password: "${REDIS_PASSWORD}" } } }
smartmodules: { own: { file: modules/own.wasm }, visible-posts: { file: /opt/visible.wasm } }
topics:
  a: { broker: main }
  b: { broker: log, partitions: 2 }
  a.dlq: { broker: main, retention: 20d, partitions: 1 }
pipelines:
  last: { from: { topic: b }, to: { out: { stdout: {} }, count: { counter: { store: feeds, key: "{any.thing}" } } } }
  letters: { from: { topic: a.dlq, format: bytes }, to: { out: { stdout: {} } } }
  first:
    from: { topic: a, on_gap: continue }
    steps:
      - { id: own, uses: own, with: { n: 5, list: "a, b", none: "" }, lookback: { age: 1h } }
      - { id: seen, uses: visible-posts, with: { anything: x } }
    to: { b: { topic: { topic: b, key: "{field}" } } }
"#;

#[test]
fn levels_follow_topics_and_dead_letters() {
    let plan = plan_of(CHAIN).unwrap();
    let levels: Vec<Vec<&str>> = plan
        .pipeline_levels()
        .into_iter()
        .map(|level| level.into_iter().map(|pipeline| pipeline.name.as_str()).collect())
        .collect();
    assert_eq!(levels, [vec!["first"], vec!["last", "letters"]]);
    assert_eq!(reference().pipeline_levels().len(), 1);
}

#[test]
fn paths_are_relative_to_the_file() {
    let plan = plan_of(CHAIN).unwrap();
    let file = |settings: &millrace_core::settings::Settings, key| settings.file(key).unwrap();
    let broker = &plan.brokers["main"].settings;
    assert_eq!(file(broker, "password_file"), Path::new("/etc/millrace/secrets/kafka"));
    assert_eq!(file(&plan.brokers["log"].settings, "dir"), Path::new("/etc/millrace/s3cr3t-word"));
    let [StepPlan::Module(own), StepPlan::Module(seen)] = plan.pipelines["first"].steps.as_slice() else {
        panic!("{:?}", plan.pipelines["first"].steps)
    };
    assert_eq!(own.source, ModuleSource::File("/etc/millrace/modules/own.wasm".into()));
    assert_eq!(seen.source, ModuleSource::File("/opt/visible.wasm".into()));
    assert_eq!((own.with["n"].as_str(), own.with["none"].as_str()), ("5", ""));
    let look_back = own.look_back.unwrap();
    assert_eq!((look_back.records_max, look_back.age_max), (1000, Some(Duration::from_secs(3600))));
    assert_eq!(plan.pipelines["first"].dead_letters.retention_ms, Some(20 * 86_400_000));
    let Output::Topic { topic, broker, key } = &plan.pipelines["first"].sinks[0].output else { panic!() };
    assert_eq!((topic.as_str(), broker.as_str(), key.as_ref().unwrap().source()), ("b", "log", "{field}"));
}

#[test]
fn a_plan_prints_no_secret() {
    let text = CHAIN.replace("password_file: secrets/kafka", "password: hunter2");
    let plan = plan_of(&text).unwrap();
    let redis = &plan.stores["feeds"].settings;
    assert_eq!(redis.count("pool"), Some(5));
    assert_eq!(redis.secret("password").unwrap().load().unwrap().expose(), "s3cr3t-value");
    let printed = format!("{plan:#?} {:?}", redis.as_node());
    assert!(!printed.contains("s3cr3t-value") && !printed.contains("hunter2"), "{printed}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_damaged_file_never_panics_and_is_never_wrong_without_a_word(
        cut in 0usize..7000,
        len in 0usize..40,
        put in "[-{}\\[\\]:,\"'&*!$@.a-z0-9 \\n]{0,12}",
    ) {
        let cut = (0..=cut.min(REFERENCE.len())).rev().find(|at| REFERENCE.is_char_boundary(*at)).unwrap();
        let end = (cut..=REFERENCE.len()).find(|at| *at >= cut + len && REFERENCE.is_char_boundary(*at)).unwrap_or(REFERENCE.len());
        let text = format!("{}{put}{}", &REFERENCE[..cut], &REFERENCE[end..]);
        match load("p", &text, Path::new("."), &env, &catalog()) {
            Ok(plan) => {
                proptest::prop_assert!(plan.pipelines.values().all(|pipeline| !pipeline.sinks.is_empty()));
                proptest::prop_assert!(!plan.pipeline_levels().is_empty() || plan.pipelines.is_empty());
            }
            Err(problems) => {
                proptest::prop_assert!(!problems.is_empty());
                proptest::prop_assert!(problems.iter().all(|problem| problem.at.line > 0));
            }
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        let _ = plan_of(&text);
    }
}

#[test]
fn a_drain_that_is_not_given_fits_the_broker() {
    let bootstrap = "kafka: { bootstrap:";
    let text = REFERENCE.replacen(bootstrap, "kafka: { patience: 2700ms, bootstrap:", 1);
    assert_ne!(text, REFERENCE);
    let plan = plan_of(&text).unwrap();
    let feed = &plan.pipelines["home-feed"];
    let wanted = Duration::from_millis(2_700);
    assert_eq!((feed.drain_timeout, feed.send_timeout), (wanted, wanted));
}

#[test]
fn deployed_modules_are_named_and_so_is_the_broker_that_keeps_them() {
    let file = |more: &str| {
        format!(
            "version: 1
brokers: {{ main: {{ kafka: {{ bootstrap: k }} }}, log: {{ embedded: }} }}
{more}
smartmodules: {{ mine: {{ registry: a@1.2.0 }} }}
topics: {{ posts: {{ broker: main }} }}
pipelines:
  p:
    from: {{ topic: posts }}
    steps: [ {{ id: a, uses: mine }}, {{ id: b, uses: b@latest }} ]
    to: {{ out: {{ stdout: }} }}
"
        )
    };
    let plan = plan_of(&file("")).unwrap();
    assert_eq!((plan.state.as_str(), plan.require_signature), ("main", None), "the first broker");
    let sources: Vec<_> = plan.pipelines["p"].modules().map(|module| module.source.clone()).collect();
    let deployed = |text: &str| ModuleSource::Registry(text.parse().unwrap());
    assert_eq!(sources, [deployed("a@1.2.0"), deployed("b@latest")]);
    let plan = plan_of(&file("state: log\nrequire_signature: { keys: [ a.pub, b.pub ] }")).unwrap();
    assert_eq!(plan.state, "log");
    let keys = plan.require_signature.unwrap();
    assert!(keys.len() == 2 && keys[0].ends_with("a.pub"), "{keys:?}");
}

#[test]
fn versions_on_trial_are_of_the_steps_module() {
    let text = "version: 1
brokers: { main: { kafka: { bootstrap: k } } }
smartmodules: { mine: { registry: a@1.2.0 } }
topics: { posts: { broker: main, partitions: 4 } }
pipelines:
  p:
    from: { topic: posts }
    steps:
      - { id: a, uses: mine, canary: { version: 1.3.0, partitions: [3, 0] } }
      - { id: b, uses: b@latest, canary: { version: 2.0.0-rc.1, share: 0.5% } }
      - { id: c, uses: b@1.0.0, lookback: { last: 5 }, shadow: { version: 1.1.0 } }
    to: { out: { stdout: } }
";
    let plan = plan_of(text).unwrap();
    let trials: Vec<_> = plan.pipelines["p"].modules().map(|module| module.trial.clone().unwrap()).collect();
    let trial = |version: &str, manner| TrialPlan { version: version.parse().unwrap(), manner };
    let expected = [
        trial("a@1.3.0", TrialManner::Canary(CanaryPart::Partitions([0, 3].into()))),
        trial("b@2.0.0-rc.1", TrialManner::Canary(CanaryPart::Share { per_million: 5_000 })),
        trial("b@1.1.0", TrialManner::Shadow),
    ];
    assert_eq!(trials, expected);
    let deployed = plan.pipelines["p"].modules().flat_map(ModulePlan::deployed);
    let names: Vec<String> = deployed.map(|(name, _)| name).collect();
    assert_eq!(names, ["mine", "a@1.3.0", "b@latest", "b@2.0.0-rc.1", "b@1.0.0", "b@1.1.0"]);
}
