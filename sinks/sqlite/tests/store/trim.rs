//! A timeline stores what it must and little more, and counts itself right.

use super::*;

#[tokio::test]
async fn a_long_timeline_keeps_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let sink = timeline(&store, &[("keep", "300"), ("slack", "20")]);
    for batch in 0..20_i64 {
        // Stirred: 37 and 2,000 have no common divisor.
        let numbers = (batch * 100..(batch + 1) * 100).map(|n| n * 37 % 2_000);
        let adds: Vec<Message> = numbers.map(|n| add("k", &format!("p{n}"), n)).collect();
        deliver(&*sink, &adds).await;
        deliver(&*sink, &adds[..50]).await;
        let stored = rows(folder.path(), "timelines");
        assert!(stored <= 340, "{stored} are stored");
    }
    let removes: Vec<Message> = (1_980..2_000).map(|n| remove("k", &format!("p{n}"), n)).collect();
    deliver(&*sink, &removes).await;
    let newest = store.timeline("k", 300).await.unwrap();
    let expected: Vec<(String, f64)> =
        (1_680..1_980).rev().map(|n| (format!("p{n}"), f64::from(n))).collect();
    assert_eq!(newest, expected);
    let counted: i64 =
        sqlite3(folder.path()).query_row("SELECT count FROM timeline_keys", (), |row| row.get(0)).unwrap();
    assert_eq!(counted, rows(folder.path(), "timelines"));
}
