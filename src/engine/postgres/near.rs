//! The names nearest to one that does not exist.

const NEAR_MAX: usize = 3;
/// Jaro-Winkler likeness below which a name is not worth showing.
const LIKENESS_MIN: f64 = 0.75;

/// The nearest of `known`, best first; a name that differs only in case always counts.
pub(super) fn nearest(wanted: &str, known: &[String]) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(f64, &String)> = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(NEAR_MAX).map(|(_, name)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn near_names_come_first_and_far_ones_not_at_all() {
        let known = ["orders", "Order_Items", "customers", "zzz"].map(str::to_owned);
        assert_eq!(nearest("ordesr", &known).first().map(String::as_str), Some("orders"));
        assert_eq!(nearest("order_items", &known).first().map(String::as_str), Some("Order_Items"));
        assert!(nearest("qqq", &known).is_empty());
    }
}
