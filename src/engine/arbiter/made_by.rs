//! What made a change, for the operator: nothing is decided by it.

use crate::wire::command::{self, Spec};

/// A command by its number in the table of commands, a snapshot, or not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MadeBy(u16);

impl MadeBy {
    pub const UNKNOWN: MadeBy = MadeBy(0);
    /// A key of a first copy.
    pub const SNAPSHOT: MadeBy = MadeBy(u16::MAX);

    #[inline]
    pub fn command(spec: Option<&'static Spec>) -> Self {
        spec.map_or(MadeBy::UNKNOWN, |spec| MadeBy(command::number(spec) + 1))
    }

    pub fn is_command(self) -> bool {
        self != MadeBy::UNKNOWN && self != MadeBy::SNAPSHOT
    }

    /// The command's name in capitals, or `snapshot`.
    pub fn name(self) -> Option<String> {
        if self == MadeBy::SNAPSHOT {
            return Some("snapshot".into());
        }
        self.0.checked_sub(1).and_then(command::numbered).map(|spec| spec.name.replace('|', " ").to_ascii_uppercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_called_by_its_name() {
        let name = |words: &[&str]| MadeBy::command(command::lookup(words)).name();
        assert_eq!(name(&["set", "k", "v"]).as_deref(), Some("SET"));
        assert_eq!(name(&["XGROUP", "CREATE", "k", "g", "$"]).as_deref(), Some("XGROUP CREATE"));
        assert_eq!(name(&["ACL"]).as_deref(), Some("ACL"), "the first of the table");
        assert_eq!(name(&["zz.unheard", "k"]), None);
        assert_eq!(MadeBy::SNAPSHOT.name().as_deref(), Some("snapshot"));
    }
}
