//! Transactions of plain SETs and MSETs to a cluster, where one MSET sets the control key and all that it stands for.

use super::outbox::{Item, ItemKind};

/// How many keys they set, if they are plain SETs and MSETs and nothing else; `None`: some are something else, or there are none.
pub(super) fn count(items: &[Item]) -> Option<usize> {
    let mut count = 0;
    for item in items {
        count += pairs_in(item)?.0;
    }
    (count > 0).then_some(count)
}

/// Where in the bytes of one of those items the first key begins.
pub(super) fn begin(item: &Item) -> usize {
    pairs_in(item).map_or(0, |(_, begin)| begin)
}

/// How many keys an item's one command sets, and where in its bytes the first begins, if it is a plain SET or a MSET.
fn pairs_in(item: &Item) -> Option<(usize, usize)> {
    if item.kind != ItemKind::Changes || item.commands != 1 || item.slot.is_none() || !item.telltales.is_empty() {
        return None;
    }
    let data = &item.data[..];
    let rest = data.strip_prefix(b"*")?;
    let (args, digits) = <usize as atoi::FromRadix10>::from_radix_10(rest);
    let rest = rest[digits..].strip_prefix(b"\r\n$")?;
    let (named, rest) = rest.split_at_checked(8)?;
    let begin = data.len() - rest.len();
    if args == 3 && named[..6].eq_ignore_ascii_case(b"3\r\nset") && &named[6..] == b"\r\n" {
        return Some((1, begin));
    }
    let mset = args >= 3 && args % 2 == 1 && named.eq_ignore_ascii_case(b"4\r\nmset\r") && rest.first() == Some(&b'\n');
    mset.then_some((args / 2, begin + 1))
}
