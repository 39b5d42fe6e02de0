//! Time spans and sizes as people write them.

use tokio::time::Duration;

/// A hundred years: what is longer overflows the clocks of some system.
const DURATION_MAX_MS: u64 = 36_500 * 86_400_000;

/// `500ms`, `30s`, `5m`, `168h`, `30d`. None when it is nothing of the kind, or longer than a hundred years.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).filter(|ms| *ms <= DURATION_MAX_MS).map(Duration::from_millis)
}

/// `512`, `64KiB`, `16MiB`, `1GiB`, also `kB`, `MB`, `GB` (powers of ten). None when it is nothing of the kind.
pub fn parse_size(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    let (number, unit) = split(text)?;
    let unit_bytes: u64 = match unit {
        "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit_bytes)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units_and_refuses_the_rest() {
        assert_eq!(parse_duration("168h"), Some(Duration::from_secs(604_800)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
        assert_eq!(parse_size("512"), Some(512));
        for wrong in
            ["", "5", "h", "5 weeks", "-1s", "99999999999999999999s", "18446744073709551615d", "36501d"]
        {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        for wrong in ["", "GiB", "1XiB", "18446744073709551615GiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }
}
