//! What a registry does on whatever broker: run here on a log in memory, and by the program's tests on the embedded log
//! and on Kafka.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::sync::Arc;

use futures::future::join_all;
use millrace_core::{Broker, Class, ModuleReference, Version};
use millrace_registry::{
    Deployed, KeyError, ModuleRegistry, Moved, NewModule, Param, Sheet, SigningKey, TopicRegistry,
    VerifyingKey, verify,
};

/// Made with `openssl genpkey -algorithm ed25519`, and used for nothing else.
pub const PRIVATE_KEY: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAFwDcl/A4kidv7+rn9vRWSQSq3xQv+8FvatiVfCyux/
-----END PRIVATE KEY-----
";
/// Of [`PRIVATE_KEY`].
pub const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEABDgkhmj7DyKM4M61Oq5yYaYJaKIYnHnoSr+yLAdEvp0=
-----END PUBLIC KEY-----
";
/// Of another key.
const OTHER_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAiOcEgJQN0p8yEJQzNA/E6PmtYYd4vHCcusrHjoNKJI4=
-----END PUBLIC KEY-----
";

/// Bytes that nothing compresses, and others for another seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| step()).collect()
}

pub fn module<'a>(name: &str, version: &str, wasm: &'a [u8]) -> NewModule<'a> {
    NewModule {
        name: name.to_owned(),
        version: version.parse().unwrap(),
        kind: "filter".to_owned(),
        wasm,
        sheet: Sheet {
            description: Some("drops what is hidden".to_owned()),
            params: vec![Param { name: "hide".to_owned(), description: None, optional: true }],
            ..Sheet::default()
        },
        at_ms: 1_700_000_000_000,
        by: "somebody".to_owned(),
        signer: None,
        latest: true,
    }
}

/// All of it, in a topic of its own name.
pub async fn run(broker: Arc<dyn Broker>, prefix: &str) {
    what_is_deployed_is_there(&broker, &format!("{prefix}.deploy")).await;
    versions_are_never_changed(&broker, &format!("{prefix}.immutable")).await;
    of_two_at_once_one_wins(&broker, &format!("{prefix}.race")).await;
    latest_goes_forth_and_back(&broker, &format!("{prefix}.latest")).await;
    what_is_deleted_is_gone(&broker, &format!("{prefix}.delete")).await;
    signatures_are_of_one_version(&broker, &format!("{prefix}.signed")).await;
}

fn reference(text: &str) -> ModuleReference {
    text.parse().unwrap()
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

async fn latest_of(registry: &TopicRegistry, name: &str) -> Option<String> {
    Some(registry.list().await.unwrap().modules.get(name)?.latest.as_ref()?.to_string())
}

async fn deploy(registry: &TopicRegistry, module: NewModule<'_>) {
    let label = format!("{}@{}", module.name, module.version);
    let deployed = registry.deploy(module).await.unwrap();
    assert!(matches!(deployed, Deployed::New(_)), "{label}: {deployed:?}");
}

async fn what_is_deployed_is_there(broker: &Arc<dyn Broker>, topic: &str) {
    let registry = TopicRegistry::new(broker.clone(), topic);
    assert!(registry.list().await.unwrap().modules.is_empty());
    assert_eq!(broker.admin().topic(topic).await.unwrap(), None, "a look makes no topic");
    // Several pieces, past the usual limit of a message.
    let large = noise(3 << 20, 1);
    deploy(&registry, module("large", "1.0.0", &large)).await;
    let small = vec![0; 300_000];
    deploy(&registry, module("small", "0.1.0-rc.1", &small)).await;
    // Whoever comes later reads the same.
    let registry = TopicRegistry::new(broker.clone(), topic);
    let shelf = registry.list().await.unwrap();
    assert_eq!(shelf.modules.keys().collect::<Vec<_>>(), ["large", "small"]);
    let manifest = shelf.resolve(&reference("large@1.0.0")).unwrap();
    assert!(manifest.chunks > 1 && manifest.size_bytes == 3 << 20, "{manifest:?}");
    assert_eq!(manifest.params[0].name, "hide");
    assert_eq!(shelf.by_digest(&manifest.digest), Some(manifest));
    assert!(registry.fetch(manifest).await.unwrap() == large, "the code is what was deployed");
    let manifest = shelf.resolve(&reference("small@latest")).unwrap();
    assert!(manifest.stored_bytes < 1_000, "{manifest:?}");
    assert!(registry.fetch(manifest).await.unwrap() == small);
    // In a topic that was copied, offsets are others.
    let mut moved = manifest.clone();
    moved.first_chunk_offset = 1_000_000;
    assert!(registry.fetch(&moved).await.unwrap() == small);
    let error = shelf.resolve(&reference("smal@1.0.0")).unwrap_err();
    assert!(error.chain().contains("small"), "{}", error.chain());
    let error = shelf.resolve(&reference("large@2.0.0")).unwrap_err();
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.chain().contains("versions: 1.0.0"), "{}", error.chain());
}

async fn versions_are_never_changed(broker: &Arc<dyn Broker>, topic: &str) {
    let registry = TopicRegistry::new(broker.clone(), topic);
    let (one, two) = (noise(1_000, 1), noise(1_000, 2));
    deploy(&registry, module("a", "1.0.0", &one)).await;
    let again = registry.deploy(module("a", "1.0.0", &one)).await.unwrap();
    assert!(matches!(again, Deployed::Same(_)), "{again:?}");
    let taken = registry.deploy(module("a", "1.0.0", &two)).await.unwrap();
    let Deployed::Taken(by) = taken else { panic!("{taken:?}") };
    assert!(registry.fetch(&by).await.unwrap() == one);
    // The same code again under an older version does not move 'latest'.
    deploy(&registry, module("a", "1.1.0", &two)).await;
    registry.deploy(module("a", "1.0.0", &one)).await.unwrap();
    assert_eq!(latest_of(&registry, "a").await.as_deref(), Some("1.1.0"));
}

async fn of_two_at_once_one_wins(broker: &Arc<dyn Broker>, topic: &str) {
    let codes: Vec<Vec<u8>> = (1..=4).map(|seed| noise(200_000, seed)).collect();
    let deploys = codes.iter().map(|wasm| {
        let registry = TopicRegistry::new(broker.clone(), topic);
        async move { registry.deploy(module("raced", "1.0.0", wasm)).await.unwrap() }
    });
    let ends = join_all(deploys).await;
    let won: Vec<_> = ends.iter().filter(|end| matches!(end, Deployed::New(_))).collect();
    assert_eq!((ends.len(), won.len()), (4, 1), "{ends:?}");
    let Deployed::New(winner) = won[0] else { unreachable!() };
    for end in &ends {
        let (Deployed::New(told) | Deployed::Taken(told) | Deployed::Same(told)) = end;
        assert_eq!(told, winner, "everybody is told who won");
    }
    let registry = TopicRegistry::new(broker.clone(), topic);
    let shelf = registry.list().await.unwrap();
    assert_eq!(shelf.resolve(&reference("raced@1.0.0")).unwrap(), winner);
    assert!(codes.contains(&registry.fetch(winner).await.unwrap().to_vec()));
}

async fn latest_goes_forth_and_back(broker: &Arc<dyn Broker>, topic: &str) {
    let registry = TopicRegistry::new(broker.clone(), topic);
    let wasm = noise(100, 7);
    deploy(&registry, module("a", "1.0.0", &wasm)).await;
    let error = registry.roll_back("a").await.unwrap_err();
    assert!(error.chain().contains("named nothing before"), "{}", error.chain());
    for version in ["2.0.0", "2.0.1"] {
        deploy(&registry, module("a", version, &wasm)).await;
    }
    deploy(&registry, NewModule { latest: false, ..module("a", "3.0.0", &wasm) }).await;
    assert_eq!(latest_of(&registry, "a").await.as_deref(), Some("2.0.1"), "a deploy may leave it");
    let moved = registry.roll_back("a").await.unwrap();
    assert_eq!(moved, Moved { from: Some(version("2.0.1")), to: version("2.0.0") });
    // What was taken back is not come back to.
    deploy(&registry, module("a", "2.0.2", &wasm)).await;
    registry.roll_back("a").await.unwrap();
    assert_eq!(latest_of(&registry, "a").await.as_deref(), Some("2.0.0"));
    registry.point("a", &version("3.0.0")).await.unwrap();
    registry.point("a", &version("1.0.0")).await.unwrap();
    assert!(registry.roll_back("a").await.is_err(), "before 1.0.0 there was nothing");
    let error = registry.point("a", &version("9.0.0")).await.unwrap_err();
    assert!(error.chain().contains("versions: 3.0.0, 2.0.2"), "{}", error.chain());
    assert!(registry.roll_back("b").await.is_err());
}

async fn what_is_deleted_is_gone(broker: &Arc<dyn Broker>, topic: &str) {
    let registry = TopicRegistry::new(broker.clone(), topic);
    let wasm = noise(1_000_000, 7);
    deploy(&registry, module("a", "1.0.0", &wasm)).await;
    deploy(&registry, module("a", "2.0.0", &wasm)).await;
    let error = registry.delete("a", &version("2.0.0")).await.unwrap_err();
    assert!(error.chain().contains("'latest' names it"), "{}", error.chain());
    let gone = registry.delete("a", &version("1.0.0")).await.unwrap();
    let shelf = registry.list().await.unwrap();
    assert!(shelf.resolve(&reference("a@1.0.0")).is_err());
    // Until the log is compacted, whoever knows of it still gets it: all of it, or nothing.
    match registry.fetch(&gone).await {
        Ok(code) => assert!(code == wasm),
        Err(error) => assert!(error.chain().contains("deleted"), "{}", error.chain()),
    }
    // The same code under another version is its own.
    let other = shelf.resolve(&reference("a@2.0.0")).unwrap();
    assert!(registry.fetch(other).await.unwrap() == wasm);
    assert!(registry.roll_back("a").await.is_err(), "what is gone is not come back to");
    registry.delete("a", &version("2.0.0")).await.unwrap();
    assert!(registry.list().await.unwrap().modules.is_empty());
    assert!(registry.delete("a", &version("2.0.0")).await.is_err());
}

async fn signatures_are_of_one_version(broker: &Arc<dyn Broker>, topic: &str) {
    let registry = TopicRegistry::new(broker.clone(), topic);
    let signer = SigningKey::from_pem(PRIVATE_KEY).unwrap();
    let keys =
        [VerifyingKey::from_pem(OTHER_PUBLIC_KEY).unwrap(), VerifyingKey::from_pem(PUBLIC_KEY).unwrap()];
    let wasm = noise(100, 7);
    deploy(&registry, module("plain", "1.0.0", &wasm)).await;
    deploy(&registry, NewModule { signer: Some(&signer), ..module("signed", "1.0.0", &wasm) }).await;
    let shelf = registry.list().await.unwrap();
    let signed = shelf.resolve(&reference("signed@1.0.0")).unwrap();
    verify(signed, &keys).unwrap();
    let refused = |manifest, keys: &[VerifyingKey]| verify(manifest, keys).unwrap_err().chain();
    assert!(refused(signed, &keys[..1]).contains("none of those"));
    assert!(refused(shelf.resolve(&reference("plain@1.0.0")).unwrap(), &keys).contains("is not signed"));
    let mut passed_off = signed.clone();
    passed_off.version = version("1.0.1");
    assert!(refused(&passed_off, &keys).contains("did not make"));
    let mut passed_off = signed.clone();
    passed_off.digest = "00".repeat(32);
    assert!(refused(&passed_off, &keys).contains("did not make"));
    assert!(matches!(SigningKey::from_pem(PUBLIC_KEY), Err(KeyError::Pem(_))));
    assert!(matches!(VerifyingKey::from_pem(PRIVATE_KEY), Err(KeyError::Pem(_))));
}
