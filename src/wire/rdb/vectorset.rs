//! Vector sets in the form of Redis 8.0: 8.2 and later put one number more into each level of a node, which 8.0 refuses
//! ("Bad data format"). It is a hint for deletions that servers work out themselves where it is missing.
//!
//! The form is that of `vset.c` and `hnsw.c` of Redis 8.0 to 8.6, as a module's value (type byte 7): the module's id,
//! then fields, each with its opcode (2 a number, 5 a string), and opcode 0 at the end:
//!
//! ```text
//! dimension  nodes  quantization|M  flags  [projection: number, string]
//! per node: name [attributes] vector   count  that many numbers:
//!     id  version<<24|level   per level: links  most-links  link…  [since version 1: the worst link]   norm
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use super::walk::{len, text};

/// `vectorset` in the module ids' 6 bits a letter, without the encoding version in the lowest 10 bits.
const MODULE: u64 = 13_683_956_169_735_844_864 >> 10;
/// The longest string taken: a vector of 2^16 floats is 256 KiB.
const CAP: usize = 64 << 20;
const END: u64 = 0;
const NUMBER: u64 = 2;
const STRING: u64 = 5;
/// Flag: a projection matrix stands before the nodes.
const PROJECTED: u64 = 1;

/// This value, without its type byte, in 8.0's form. `None` where there is nothing to do or nothing known: it is no
/// vector set, has 8.0's form already, or a newer one than 8.6's.
pub fn as_of_8_0(value: &[u8]) -> Option<Bytes> {
    let mut fields = Fields { value, at: 0 };
    let id = len(value, &mut fields.at).ok()?;
    if id >> 10 != MODULE {
        return None;
    }
    for _ in 0..3 {
        fields.number()?;
    }
    if fields.number()? & PROJECTED != 0 {
        fields.number()?;
        fields.string()?;
    }
    let mut out = BytesMut::with_capacity(value.len());
    out.put_slice(&value[..fields.at]);
    let (mut changed, mut params) = (false, Vec::new());
    loop {
        // Name, attributes where the set has any, and vector go as they stand.
        let strings = fields.at;
        let count = loop {
            let here = fields.at;
            match fields.opcode()? {
                END => {
                    out.put_slice(&value[strings..fields.at]);
                    return (changed && fields.at == value.len()).then(|| out.freeze());
                }
                STRING => {
                    text(value, &mut fields.at, CAP).ok()?;
                }
                NUMBER => {
                    out.put_slice(&value[strings..here]);
                    break len(value, &mut fields.at).ok()?;
                }
                _ => return None,
            }
        };
        params.clear();
        for _ in 0..count {
            params.push(fields.number()?);
        }
        changed |= without_worst_links(&mut params)?;
        put_number(&mut out, params.len() as u64);
        for &n in &params {
            put_number(&mut out, n);
        }
    }
}

/// Whether there were any.
fn without_worst_links(params: &mut Vec<u64>) -> Option<bool> {
    let [_, level, ..] = **params else { return None };
    match level >> 24 {
        0 => return Some(false),
        1 => {}
        _ => return None,
    }
    params[1] = level & 0xff_ffff;
    let mut at = 2;
    for _ in 0..=params[1] {
        let links = usize::try_from(*params.get(at)?).ok()?;
        at = at.checked_add(2)?.checked_add(links)?;
        params.get(at)?;
        params.remove(at);
    }
    // The norm is the last.
    (at + 1 == params.len()).then_some(true)
}

struct Fields<'a> {
    value: &'a [u8],
    at: usize,
}

impl Fields<'_> {
    fn opcode(&mut self) -> Option<u64> {
        len(self.value, &mut self.at).ok()
    }

    fn number(&mut self) -> Option<u64> {
        (self.opcode()? == NUMBER).then_some(())?;
        len(self.value, &mut self.at).ok()
    }

    fn string(&mut self) -> Option<()> {
        (self.opcode()? == STRING).then_some(())?;
        text(self.value, &mut self.at, CAP).ok().map(drop)
    }
}

/// A number as a module's field: its opcode, then the shortest of the length encodings.
fn put_number(out: &mut BytesMut, n: u64) {
    out.put_u8(NUMBER as u8);
    match n {
        0..64 => out.put_u8(n as u8),
        64..16_384 => out.put_u16(0x4000 | n as u16),
        16_384..=0xffff_ffff => {
            out.put_u8(0x80);
            out.put_u32(n as u32);
        }
        _ => {
            out.put_u8(0x81);
            out.put_u64(n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Redis 8.2.3 and 8.0.2: `VADD v VALUES 3 0.1 0.2 0.3 first`.
    fn value(node: &[u64]) -> Vec<u8> {
        let mut out = BytesMut::new();
        out.put_u8(0x81);
        out.put_u64(MODULE << 10);
        for n in [3, 1, 4096, 0] {
            put_number(&mut out, n);
        }
        out.put_slice(b"\x05\x05first\x05\x03abc");
        put_number(&mut out, node.len() as u64);
        for &n in node {
            put_number(&mut out, n);
        }
        out.put_u8(0);
        out.to_vec()
    }

    const NEW: [u64; 14] = [4, 0x100_0001, 4, 32, 3, 2, 1, 5, 4_476_593_680_467_099_650, 1, 16, 1, 9, 1_057_610_808];
    const OLD: [u64; 12] = [4, 1, 4, 32, 3, 2, 1, 5, 1, 16, 1, 1_057_610_808];

    #[test]
    fn the_worst_links_go_and_all_else_stays() {
        assert_eq!(as_of_8_0(&value(&NEW)).as_deref(), Some(&value(&OLD)[..]));
        assert_eq!(as_of_8_0(&value(&OLD)), None, "it has the older form already");
        let mut newer = NEW;
        newer[1] = 0x200_0001;
        assert_eq!(as_of_8_0(&value(&newer)), None, "of a form that is not known");
    }

    #[test]
    fn damage_is_left_as_it_is() {
        let whole = value(&NEW);
        for at in 0..whole.len() {
            assert_eq!(as_of_8_0(&whole[..at]), None, "cut at {at}");
            let mut bad = whole.clone();
            bad[at] ^= 0x55;
            drop(as_of_8_0(&bad));
        }
    }
}
