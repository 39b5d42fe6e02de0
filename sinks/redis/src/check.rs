//! What would make a server unfit: its version, what it evicts, what it keeps, whether it is the master.

use std::collections::HashMap;

use millrace_core::{Error, Finding, Result};

use crate::connection::{Connection, text_of};

/// ZADD GT and ZRANGE BYLEX came with this one.
const VERSION_MIN: (u32, u32) = (6, 2);

/// Looks at the server, or at every master of a cluster.
pub(crate) async fn check(connection: &Connection) -> Result<Vec<Finding>> {
    let masters = connection.run_on_masters(redis::cmd("INFO")).await?;
    if masters.is_empty() {
        return Err(Error::retry(connection.who(), "no node answered"));
    }
    let mut findings = vec![Finding { ok: true, what: format!("{} answers", names(&masters)) }];
    for (node, answer) in &masters {
        findings.extend(look_at(node, &text_of(answer)));
    }
    Ok(findings)
}

fn names<T>(nodes: &[(String, T)]) -> String {
    nodes.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>().join(", ")
}

/// What one server's INFO says.
fn look_at(node: &str, info: &str) -> Vec<Finding> {
    let lines: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim().split_once(':')).collect();
    let get = |name: &str| lines.get(name).copied();
    let finding = |ok: bool, what: String| Finding { ok, what: format!("{node}: {what}") };
    let mut findings = Vec::new();

    let version = get("redis_version").unwrap_or("unknown");
    findings.push(match parse_version(version) {
        Some(found) if found >= VERSION_MIN => finding(true, format!("version {version}")),
        _ => {
            finding(false, format!("version {version}, must be {}.{} or newer", VERSION_MIN.0, VERSION_MIN.1))
        }
    });
    findings.push(match get("maxmemory_policy") {
        Some("noeviction") => finding(true, "maxmemory-policy is noeviction".to_owned()),
        Some(policy) => finding(
            false,
            format!(
                "maxmemory-policy is {policy}, must be noeviction: eviction forgets ledgers and tombstones"
            ),
        ),
        None => finding(true, "warning: maxmemory-policy is not shown, must be noeviction".to_owned()),
    });
    findings.push(match get("aof_enabled") {
        Some("1") => finding(true, "appendonly is yes".to_owned()),
        _ => finding(
            true,
            "warning: appendonly is no: a crash loses acknowledged effects since the last snapshot"
                .to_owned(),
        ),
    });
    findings.push(match get("role") {
        Some("master") | None => finding(true, "is a master".to_owned()),
        Some(role) => finding(false, format!("is a {role}, effects need a master")),
    });
    findings
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(info: &str) -> Vec<String> {
        look_at("a:1", info).into_iter().filter(|finding| !finding.ok).map(|finding| finding.what).collect()
    }

    #[test]
    fn a_fit_server_has_no_fault() {
        let info = "# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\nrole:master\r\n";
        assert!(wrong(info).is_empty());
        assert!(look_at("a:1", info).iter().all(|finding| !finding.what.contains("warning")));
    }

    #[test]
    fn each_fault_is_named() {
        let faults = wrong("redis_version:6.0.16\nmaxmemory_policy:allkeys-lru\naof_enabled:0\nrole:slave\n");
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert_eq!(faults[0], "a:1: version 6.0.16, must be 6.2 or newer");
        assert!(faults[1].contains("allkeys-lru, must be noeviction"));
        assert!(faults[2].contains("is a slave"));
        let silent = look_at("a:1", "redis_version:7.2.4\n");
        assert_eq!(silent.iter().filter(|finding| finding.what.contains("warning")).count(), 2);
    }
}
