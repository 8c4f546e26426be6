//! The other fields of tokens ([`Extra`]).

use std::fmt;

use secrecy::SecretString;

/// Fields by name, in the order of the names. There are a few, in each of many credentials: a tree has
/// room for eleven before its first.
#[derive(Clone, Default)]
pub(crate) struct Extra(Vec<(Box<str>, SecretString)>);

impl Extra {
    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(name))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&SecretString> {
        self.find(name).ok().map(|at| &self.0[at].1)
    }

    pub(crate) fn insert(&mut self, name: &str, value: SecretString) {
        match self.find(name) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (name.into(), value));
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.0.remove(at);
        }
    }

    /// Without the fields of which this says `false`.
    pub(crate) fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| keeps(name));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The names alone.
impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn what_was_put_last_is_found_and_the_names_are_in_order() {
        let mut extra = Extra::default();
        for (name, value) in [("b", "1"), ("a", "2"), ("c", "3"), ("b", "4")] {
            extra.insert(name, value.into());
        }
        let all = |extra: &Extra| {
            let all = extra.iter().map(|(name, value)| format!("{name}{}", value.expose_secret()));
            all.collect::<Vec<_>>()
        };
        assert_eq!(all(&extra), ["a2", "b4", "c3"]);
        assert_eq!(extra.get("b").map(|it| it.expose_secret()), Some("4"));
        extra.remove("b");
        extra.remove("d");
        assert!(extra.get("b").is_none());
        extra.retain(|name| name != "a");
        assert_eq!((all(&extra), extra.is_empty()), (vec!["c3".to_owned()], false));
        assert_eq!(format!("{extra:?}"), r#"{"c"}"#);
    }
}
