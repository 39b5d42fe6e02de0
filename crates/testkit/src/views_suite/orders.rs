//! Every order in which a few messages can arrive.

/// All permutations of `items`, at most 7 of them: 5,040 orders.
pub fn every_order<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    assert!(items.len() <= 7, "{} items have too many orders", items.len());
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut orders = Vec::new();
    for index in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(index);
        for mut order in every_order(&rest) {
            order.insert(0, first.clone());
            orders.push(order);
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_each_order_once() {
        let mut orders = every_order(&[1, 2, 3, 4]);
        assert_eq!(orders.len(), 24);
        orders.sort_unstable();
        orders.dedup();
        assert_eq!(orders.len(), 24);
    }
}
