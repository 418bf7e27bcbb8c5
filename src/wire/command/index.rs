//! Names to specs, without case and without allocating.

use super::table::TABLE;
use super::{Argv, Spec};
use std::sync::LazyLock;

/// Places in the hash table: a power of two, several times the number of commands, so that most are found at once.
const PLACES: usize = 4096;

/// No command is longer, subcommand included; the test below holds it.
const LONGEST: usize = 64;

static INDEX: LazyLock<Box<[u16; PLACES]>> = LazyLock::new(|| {
    let mut places = Box::new([u16::MAX; PLACES]);
    for (i, spec) in TABLE.iter().enumerate() {
        let mut at = hash(spec.name.as_bytes());
        while places[at] != u16::MAX {
            at = (at + 1) % PLACES;
        }
        places[at] = i as u16;
    }
    places
});

/// The command of these arguments: the subcommand's spec where there is one, else the container's.
#[inline]
pub fn lookup(argv: &(impl Argv + ?Sized)) -> Option<&'static Spec> {
    let spec = lookup_name(argv.arg(0))?;
    if !spec.container || argv.argc() < 2 {
        return Some(spec);
    }
    let (name, sub) = (argv.arg(0), argv.arg(1));
    let mut whole = [0u8; LONGEST];
    let len = name.len() + 1 + sub.len();
    if len > LONGEST {
        return Some(spec);
    }
    whole[..name.len()].copy_from_slice(name);
    whole[name.len()] = b'|';
    whole[name.len() + 1..len].copy_from_slice(sub);
    lookup_name(&whole[..len]).or(Some(spec))
}

/// A command by its name, or a subcommand by `container|subcommand`.
#[inline]
pub fn lookup_name(name: &[u8]) -> Option<&'static Spec> {
    let mut at = hash(name);
    loop {
        let spec = TABLE.get(INDEX[at] as usize)?;
        if spec.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(spec);
        }
        at = (at + 1) % PLACES;
    }
}

/// The place of a command in the table: the same as long as the program runs.
#[inline]
pub fn number(spec: &'static Spec) -> u16 {
    // All specs that there are stand in the table.
    ((std::ptr::from_ref(spec).addr() - TABLE.as_ptr().addr()) / size_of::<Spec>()) as u16
}

/// The command at a place in the table.
pub fn numbered(number: u16) -> Option<&'static Spec> {
    TABLE.get(number as usize)
}

/// Of the length, the first eight and the last eight bytes, in lower case: enough to tell all names of today apart, in
/// a few instructions. What collides is found by looking on.
#[inline]
fn hash(name: &[u8]) -> usize {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let word = |bytes: &[u8]| {
        let mut w = [0u8; 8];
        w[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(w) | LOWER
    };
    let (a, b) = match name {
        [_, _, _, _, _, _, _, _, ..] => (word(&name[..8]), word(&name[name.len() - 8..])),
        short => (word(short), 0),
    };
    let mixed = (a ^ b.rotate_left(29) ^ name.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as usize % PLACES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_nothing_else_is() {
        for spec in TABLE {
            assert!(spec.name.len() <= LONGEST);
            assert_eq!(lookup_name(spec.name.as_bytes()), Some(spec));
            assert_eq!(numbered(number(spec)), Some(spec));
            assert_eq!(lookup_name(spec.name.to_ascii_uppercase().as_bytes()), Some(spec));
            assert_ne!(lookup_name(format!("{}x", spec.name).as_bytes()), Some(spec));
        }
        for nothing in ["", "g", "gett", "nosuchcommandatall", "\u{0}", "set "] {
            assert_eq!(lookup_name(nothing.as_bytes()), None, "{nothing:?}");
        }
    }

    #[test]
    fn most_names_are_found_at_the_first_look() {
        let displaced =
            TABLE.iter().enumerate().filter(|(i, spec)| INDEX[hash(spec.name.as_bytes())] as usize != *i).count();
        assert!(displaced * 5 < TABLE.len(), "{displaced} of {} are displaced", TABLE.len());
    }

    #[test]
    fn a_subcommand_is_found_by_its_second_word_and_else_the_container_is() {
        assert_eq!(lookup(&["XGROUP", "CREATE", "k", "g", "$"]).unwrap().name, "xgroup|create");
        assert_eq!(lookup(&["xgroup", "NoSuch", "k"]).unwrap().name, "xgroup");
        assert_eq!(lookup(&["script"]).unwrap().name, "script");
        assert_eq!(lookup(&["XGROUP".to_owned(), "x".repeat(100)]).unwrap().name, "xgroup");
    }
}
