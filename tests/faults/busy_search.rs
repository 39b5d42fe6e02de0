//! An Elasticsearch that has too much to do: 429 for a minute, half of a bulk refused, answers that never come.

use std::time::Duration;

use crate::{
    clock, faults,
    input::{Network, Tap},
    processes::Process,
    proxy::{Mood, Proxy},
    say, seed,
    stage::{READERS, Stage},
};

#[test]
fn an_overloaded_elasticsearch_is_waited_for() {
    let mut stage = Stage::set("busy");
    let proxy = Proxy::before(&stage.lab.elasticsearch);
    stage.millrace = stage.millrace.env("ES_URL", &proxy.url);
    let mut network = Network::new(20, seed());
    stage.people(&network);
    let (mut appender, tap) = (stage.appender(), Tap::default());
    tap.open(u64::MAX);
    let long = Duration::from_secs(if faults(0) > 0 { 60 } else { 3 });
    std::thread::scope(|scope| {
        let process = Process::start(&stage.millrace, "run", &[]).ready();
        let input = scope.spawn(|| appender.run(&mut network, 200, &tap));
        for mood in [Mood::Refuses, Mood::TakesHalf, Mood::LosesAnswers, Mood::Refuses] {
            let before = proxy.spoiled();
            proxy.set(mood);
            let spoiled = clock::within(Duration::from_secs(60), || (proxy.spoiled() > before).then_some(()));
            clock::pause(long);
            proxy.set(Mood::Fair);
            if spoiled.is_none() {
                tap.close();
                panic!("nothing met {mood:?}:\n{}", process.last_words());
            }
        }
        tap.close();
        input.join().expect("everything is appended");
        stage.drained(&READERS, || process.get("/readyz").unwrap_or_default());
        let (status, log) = process.stop();
        assert!(status.success(), "{log}");
    });
    stage.check(&network);
    say(&format!("{} requests to Elasticsearch spoiled, nothing lost", proxy.spoiled()));
}
