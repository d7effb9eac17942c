//! Checks that agreed before a later check's repair may have changed their table are measured again.

use super::judge::Judged;
use super::plan::Planned;
use super::run::{Case, Context};

impl Context<'_> {
    /// Measures again, without repairs, what agreed before such a repair. By now nothing is written any more.
    pub(super) async fn measure_again(&self, planned: &[Planned], cases: &mut [Case<'_>]) {
        let repaired = std::mem::take(&mut *self.repaired.lock().await);
        for table in planned {
            let mut of_table: Vec<&mut Case<'_>> = Vec::new();
            let mut before: Vec<(Judged, String)> = Vec::new();
            for case in cases.iter_mut().filter(|case| case.table.is_some_and(|of| std::ptr::eq(of, table))) {
                let mut by: Vec<&str> = repaired
                    .iter()
                    .skip(case.repairs_seen)
                    .filter(|repaired| repaired.may_change(table))
                    .map(|repaired| repaired.name.as_str())
                    .collect();
                by.dedup();
                if by.is_empty() || !case.judged.as_ref().is_some_and(Judged::agrees) {
                    continue;
                }
                before.extend(case.judged.take().map(|judged| (judged, by.join(", "))));
                of_table.push(case);
            }
            if of_table.is_empty() {
                continue;
            }
            self.table(table, &mut of_table).await;
            for (case, (first, by)) in of_table.into_iter().zip(before) {
                case.judged = case.judged.take().map(|second| joined(first, second, &by));
            }
        }
    }
}

fn joined(first: Judged, second: Judged, by: &str) -> Judged {
    if second.agrees() {
        Judged { message: first.message, ..second }
            .also(&format!("measured again after the writes into {by}"))
    } else {
        second.also(&format!("it agreed before this run's writes into {by}"))
    }
}
