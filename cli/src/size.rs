//! Sizes as people write and read them.

use anyhow::{Context, bail};

const UNITS: [(&str, u64); 5] = [("", 1), ("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30), ("t", 1 << 40)];

/// Bytes from `20G`, `512MiB`, `1.5T` or `1000000`. A letter, with or without `iB`, is a power of 1024; with `B` alone of 1000.
pub(crate) fn parse_size(text: &str) -> anyhow::Result<u64> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let (unit, decimal) = match (unit.strip_suffix("ib"), unit.strip_suffix('b')) {
        (Some(unit), _) => (unit, false),
        (None, Some(unit)) => (unit, true),
        (None, None) => (unit.as_str(), false),
    };
    let Some(power) = UNITS.iter().position(|(name, _)| *name == unit) else {
        bail!("{text:?} has no known unit; hint: write 20G, 512MiB or a number of bytes");
    };
    let factor = if decimal { 1000_u64.pow(power as u32) } else { UNITS[power].1 };
    let too_large = || format!("{text:?} is too large");
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).with_context(too_large);
    }
    let number: f64 =
        number.parse().ok().with_context(|| format!("{text:?} is not a size; hint: write 20G, 512MiB or a number of bytes"))?;
    let bytes = number * factor as f64;
    // 2^53: beyond, a fraction of a unit is lost anyway.
    if bytes > 9_007_199_254_740_992.0 { bail!(too_large()) } else { Ok(bytes as u64) }
}

/// A size with one decimal in the largest fitting power of 1024: `1.5 GiB`.
pub(crate) fn human(bytes: u64) -> String {
    for (name, factor) in UNITS[1..].iter().rev() {
        if bytes >= *factor {
            return format!("{:.1} {}iB", bytes as f64 / *factor as f64, name.to_ascii_uppercase());
        }
    }
    format!("{bytes} B")
}

/// A part and its whole: `1.5 of 3.0 GiB`, each with its unit where those differ.
pub(crate) fn human_part(part: u64, whole: u64) -> String {
    let (part, whole) = (human(part), human(whole));
    match (part.split_once(' '), whole.split_once(' ')) {
        (Some((number, unit)), Some((_, other))) if unit == other => format!("{number} of {whole}"),
        _ => format!("{part} of {whole}"),
    }
}

/// A size as docker's progress shows it: four digits in powers of 1000, such as `1.234MB`.
pub(crate) fn docker_size(bytes: u64) -> String {
    const DIGITS: usize = 4;
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let whole_digits = (size as u64).to_string().len();
    let number = format!("{size:.*}", DIGITS - whole_digits);
    format!("{}{}", number.trim_end_matches('0').trim_end_matches('.'), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("1000000", 1_000_000),
            ("20G", 20 << 30),
            ("20g", 20 << 30),
            ("20 GiB", 20 << 30),
            ("512MiB", 512 << 20),
            ("1.5K", 1536),
            ("1kB", 1000),
            ("2GB", 2_000_000_000),
            ("7b", 7),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "G", "-1", "1X", "1.2.3", "1e3", "99999999999T", "9999999.5T", "10 000", "inf", "nan"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_as_docker_shows_them() {
        for (bytes, text) in [
            (0, "0B"),
            (100, "100B"),
            (999, "999B"),
            (1000, "1kB"),
            (3188, "3.188kB"),
            (79_600, "79.6kB"),
            (199_949, "199.9kB"),
            (999_960, "1000kB"),
            (1_234_567, "1.235MB"),
            (12_000_001, "12MB"),
            (2_746_000_000, "2.746GB"),
            (u64::MAX, "18.45EB"),
        ] {
            assert_eq!(docker_size(bytes), text);
        }
    }

    #[test]
    fn sizes_are_shown() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.0 GiB"), (2 << 40, "2.0 TiB")]
        {
            assert_eq!(human(bytes), text);
        }
        assert_eq!(human_part(1 << 20, 3 << 20), "1.0 of 3.0 MiB");
        assert_eq!(human_part(1 << 10, 3 << 20), "1.0 KiB of 3.0 MiB");
    }
}
