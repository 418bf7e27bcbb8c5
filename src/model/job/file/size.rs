//! Sizes as people write them: `10GiB`, `512MB`, `4096`.

/// Units, largest first; the decimal ones are read but never written.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// What a size may look like, for messages.
pub(super) const ALLOWED: &str =
    "a number of bytes, or a size such as \"512MiB\" (B, KB, KiB, MB, MiB, GB, GiB, TB, TiB)";

/// Reads a size in bytes. Case of the unit doesn't matter, blanks before it are fine, and a fraction is allowed where
/// it comes to whole bytes (`1.5GiB`). `None`: not a size, or above 2^63 bytes.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let factor = if unit.is_empty() { 1 } else { UNITS.iter().find(|(u, _)| u.eq_ignore_ascii_case(unit))?.1 };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let ok = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.len() <= 19;
    if whole.is_empty() || !ok(whole) || !ok(fraction) || (number.contains('.') && fraction.is_empty()) {
        return None;
    }
    let mut bytes = whole.parse::<u128>().ok()? * u128::from(factor);
    if !fraction.is_empty() {
        let scaled = fraction.parse::<u128>().ok()? * u128::from(factor);
        let tens = 10u128.pow(fraction.len() as u32);
        if scaled % tens != 0 {
            return None;
        }
        bytes += scaled / tens;
    }
    u64::try_from(bytes).ok().filter(|b| *b <= 1 << 63)
}

/// Writes a size so that [`parse_size`] reads the same number again: the largest binary unit that divides it.
pub fn format_size(bytes: u64) -> String {
    for (unit, factor) in &UNITS[..4] {
        if bytes >= *factor && bytes.is_multiple_of(*factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}B")
}
