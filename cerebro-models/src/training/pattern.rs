//! Name patterns.

/// Whether `name` fits `pattern`, in which `*` stands for any characters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_characters() {
        assert!(matches("fc1.bias", "fc1.bias"));
        assert!(!matches("fc1.bias", "fc1.bias2"));
        assert!(matches("*.bias", "layer.0.bias"));
        assert!(matches("enc.*.norm*.weight", "enc.0.norm1.weight"));
        assert!(!matches("enc.*.norm*.weight", "enc.0.linear.weight"));
        assert!(matches("*", ""));
        assert!(!matches("ab*ba", "aba"));
    }
}
