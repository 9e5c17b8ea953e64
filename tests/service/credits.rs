//! Credits: the ledger under concurrency, who may change and read it, retries, pages, the export and the erasure.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use futures::future::join_all;
use strongroom::proto::{
    admin::v1::export_tenant_response::Record,
    v1::{
        AddCreditsRequest, CreditBalance, CreditEntry, DeductCreditsRequest, GetCreditsRequest,
        ListCreditEntriesRequest,
    },
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{
    harness::{Caller, Service, reason, service_test, violated_fields},
    tenants::erase_all_tenants,
};

impl Caller {
    pub(crate) async fn add_credits(&self, user: &str, amount: i64) -> Result<CreditEntry, Status> {
        self.add_credits_in("", user, amount, "").await
    }

    pub(crate) async fn add_credits_in(
        &self,
        tenant: &str,
        user: &str,
        amount: i64,
        request_id: &str,
    ) -> Result<CreditEntry, Status> {
        let request = AddCreditsRequest {
            tenant_id: tenant.to_owned(),
            user_id: user.to_owned(),
            amount,
            reason: "invoice paid".to_owned(),
            reference: "INV-7".to_owned(),
            request_id: request_id.to_owned(),
        };
        Ok(self.quotas.clone().add_credits(request).await?.into_inner().entry.unwrap())
    }

    pub(crate) async fn deduct_credits(&self, user: &str, amount: i64) -> Result<CreditEntry, Status> {
        self.deduct_credits_in("", user, amount, "").await
    }

    pub(crate) async fn deduct_credits_in(
        &self,
        tenant: &str,
        user: &str,
        amount: i64,
        request_id: &str,
    ) -> Result<CreditEntry, Status> {
        let request = DeductCreditsRequest {
            tenant_id: tenant.to_owned(),
            user_id: user.to_owned(),
            amount,
            reason: "course booked".to_owned(),
            reference: String::new(),
            request_id: request_id.to_owned(),
        };
        Ok(self.quotas.clone().deduct_credits(request).await?.into_inner().entry.unwrap())
    }

    pub(crate) async fn credits(&self, tenant: &str, user: &str) -> Result<CreditBalance, Status> {
        let request = GetCreditsRequest { tenant_id: tenant.to_owned(), user_id: user.to_owned() };
        Ok(self.quotas.clone().get_credits(request).await?.into_inner().credits.unwrap())
    }

    /// Lists all entries, in pages of this size.
    pub(crate) async fn credit_entries(
        &self,
        user: &str,
        page_size: i32,
    ) -> Result<Vec<CreditEntry>, Status> {
        let (mut entries, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListCreditEntriesRequest {
                tenant_id: String::new(),
                user_id: user.to_owned(),
                page_size,
                page_token,
            };
            let page = self.quotas.clone().list_credit_entries(request).await?.into_inner();
            assert!(page.entries.len() <= page_size as usize);
            entries.extend(page.entries);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(entries);
            }
        }
    }
}

/// Selects the balances that differ from the sum of the entries, in one snapshot.
pub(crate) const WRONG_BALANCES: &str = "SELECT count(*) FROM credit_balances AS b WHERE balance <> (
    SELECT coalesce(sum(amount), 0) FROM credit_entries AS e WHERE e.tenant_id = b.tenant_id AND e.user_id = b.user_id)";

/// Runs a future while another connection compares the balances with their entries. Returns its outcome.
pub(crate) async fn while_sampling<T>(s: &Service, work: impl Future<Output = T>) -> T {
    let (is_done, samples) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sampler = tokio::spawn({
        let (superuser, is_done, samples) =
            (s.database.connect_as_superuser().await, is_done.clone(), samples.clone());
        async move {
            while !is_done.load(Ordering::Relaxed) {
                assert_eq!(superuser.query_number(WRONG_BALANCES).await, 0, "balance is not the sum");
                samples.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let outcome = work.await;
    is_done.store(true, Ordering::Relaxed);
    sampler.await.unwrap();
    assert!(samples.load(Ordering::Relaxed) > 0);
    outcome
}

#[test]
fn concurrent_deductions_never_overdraw() {
    service_test(|s| async move {
        let cashier = s.cashier();
        cashier.add_credits("alice", 100).await.unwrap();
        // 64 deductions of 3 credits: 33 of them fit.
        let attempts = (0..64).map(|_| {
            let cashier = cashier.clone();
            async move { cashier.deduct_credits("alice", 3).await }
        });
        let outcomes = while_sampling(&s, join_all(attempts)).await;
        for status in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(reason(status), "CREDITS_EXHAUSTED", "{status:?}");
        }
        let deducted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(deducted, 33);
        let credits = s.alice().credits("", "").await.unwrap();
        assert_eq!((credits.balance, credits.entry_count), (1, 34));
        let entries = s.alice().credit_entries("", 10).await.unwrap();
        let numbers: Vec<i64> = entries.iter().map(|entry| entry.number).collect();
        assert_eq!(numbers, (1..=34).rev().collect::<Vec<_>>());
        let mut balance = 0;
        for entry in entries.iter().rev() {
            balance += entry.amount;
            assert_eq!(entry.balance_after, balance, "{entry:?}");
        }
    });
}

#[test]
fn concurrent_additions_and_deductions_are_exact() {
    service_test(|s| async move {
        let cashier = s.cashier();
        let attempts = (0..64).map(|n| {
            let (cashier, user) = (cashier.clone(), if n % 2 == 0 { "alice" } else { "bob" });
            async move {
                cashier.add_credits(user, 5).await.unwrap();
                cashier.deduct_credits(user, 2).await.unwrap();
            }
        });
        while_sampling(&s, join_all(attempts)).await;
        for user in ["alice", "bob"] {
            let credits = cashier.credits("", user).await.unwrap();
            assert_eq!((credits.balance, credits.entry_count), (32 * 3, 64), "{user}");
        }
    });
}

#[test]
fn exhausted_credits_are_reported_with_both_numbers() {
    service_test(|s| async move {
        let cashier = s.cashier();
        for balance in [0, 3] {
            if balance > 0 {
                cashier.add_credits("alice", balance).await.unwrap();
            }
            let error = cashier.deduct_credits("alice", 5).await.unwrap_err();
            assert_eq!(
                (error.code(), reason(&error).as_str()),
                (Code::FailedPrecondition, "CREDITS_EXHAUSTED")
            );
            let info = error.get_details_error_info().unwrap();
            assert_eq!(info.metadata["balance_credits"], balance.to_string());
            assert_eq!(info.metadata["required_credits"], "5");
        }
        cashier.deduct_credits("alice", 3).await.unwrap();
        assert_eq!(s.alice().credits("", "").await.unwrap().balance, 0);
    });
}

#[test]
fn retried_changes_have_one_effect() {
    service_test(|s| async move {
        let cashier = s.cashier();
        let [add, deduct] = [7, 8].map(|n| uuid::Uuid::from_u128(n).to_string());
        let added = cashier.add_credits_in("", "alice", 10, &add).await.unwrap();
        assert_eq!(cashier.add_credits_in("", "alice", 10, &add).await.unwrap(), added);
        // 32 concurrent attempts of one request.
        let attempts = (0..32).map(|_| {
            let (cashier, deduct) = (cashier.clone(), deduct.clone());
            async move { cashier.deduct_credits_in("", "alice", 7, &deduct).await }
        });
        let mut entries = Vec::new();
        for outcome in join_all(attempts).await {
            match outcome {
                Ok(entry) => entries.push(entry),
                Err(status) => assert_eq!(reason(&status), "REQUEST_IN_PROGRESS"),
            }
        }
        entries.dedup();
        assert_eq!((entries.len(), entries[0].amount, entries[0].balance_after), (1, -7, 3));
        for changed in [
            cashier.deduct_credits_in("", "alice", 8, &deduct).await,
            cashier.deduct_credits_in("", "bob", 7, &deduct).await,
            cashier.add_credits_in("", "alice", 7, &deduct).await,
        ] {
            assert_eq!(reason(&changed.unwrap_err()), "REQUEST_ID_REUSED");
        }
        assert_eq!(s.alice().credits("", "").await.unwrap().entry_count, 2);
    });
}

#[test]
fn credits_are_changed_with_the_scope_or_by_operators() {
    service_test(|s| async move {
        let acme = s.ada().tenant_id().await;
        for caller in [s.alice(), s.maria(), s.ada(), s.billing()] {
            for outcome in [caller.add_credits("alice", 1).await, caller.deduct_credits("alice", 1).await] {
                let error = outcome.unwrap_err();
                assert_eq!((error.code(), reason(&error).as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
                assert!(error.message().contains("credits:write"), "{error:?}");
            }
        }
        let denials = "SELECT count(*) FROM audit_entries WHERE NOT is_allowed";
        assert_eq!(s.superuser.query_number(denials).await, 8);
        let operator = s.operator();
        let added = operator.add_credits_in(&acme, "alice", 9, "").await.unwrap();
        assert_eq!((added.number, added.created_by.as_str(), added.balance_after), (1, "root", 9));
        let deducted = s.cashier().deduct_credits("user:alice", 4).await.unwrap();
        assert_eq!((deducted.number, deducted.created_by.as_str()), (2, "service:cashier"));
        let error = operator.add_credits("alice", 1).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["tenant_id"]);
        // The scope is for the tenant of the token only.
        s.gus().usage().await.unwrap();
        let globex = s.gus().tenant_id().await;
        let foreign = s.cashier().add_credits_in(&globex, "gus", 1, "").await.unwrap_err();
        assert_eq!(foreign.code(), Code::NotFound);
        let changes = "SELECT count(*) FROM audit_entries WHERE is_allowed
            AND action IN ({audit_action.credit_add}, {audit_action.credit_deduct}) AND details ->> 'user_id' = 'alice'";
        assert_eq!(s.superuser.query_number(changes).await, 2);
    });
}

#[test]
fn credits_of_others_are_read_by_admins_and_services() {
    service_test(|s| async move {
        s.cashier().add_credits("alice", 9).await.unwrap();
        let acme = s.ada().tenant_id().await;
        for (caller, tenant) in
            [(s.alice(), ""), (s.ada(), ""), (s.billing(), ""), (s.operator(), acme.as_str())]
        {
            let credits = caller.credits(tenant, "alice").await.unwrap();
            assert_eq!((credits.user_id.as_str(), credits.balance), ("alice", 9));
        }
        assert_eq!(
            s.bob().credits("", "").await.unwrap(),
            CreditBalance { user_id: "bob".to_owned(), ..CreditBalance::default() }
        );
        for caller in [s.bob(), s.maria()] {
            assert_eq!(caller.credits("", "alice").await.unwrap_err().code(), Code::PermissionDenied);
            let listed = caller.credit_entries("alice", 10).await;
            assert_eq!(listed.unwrap_err().code(), Code::PermissionDenied);
        }
        let error = s.operator().credits(&acme, "").await.unwrap_err();
        assert_eq!(violated_fields(&error), ["user_id"]);
        // A user of another tenant with the same subject has a ledger of its own.
        assert_eq!(s.member("alice", "globex", "member", &[]).credits("", "").await.unwrap().balance, 0);
    });
}

#[test]
fn page_tokens_belong_to_one_ledger() {
    service_test(|s| async move {
        for user in ["alice", "bob"] {
            for _ in 0..3 {
                s.cashier().add_credits(user, 1).await.unwrap();
            }
        }
        let list = |user: &str, page_token: String| {
            let (mut quotas, user_id) = (s.ada().quotas, user.to_owned());
            let request =
                ListCreditEntriesRequest { tenant_id: String::new(), user_id, page_size: 2, page_token };
            async move { quotas.list_credit_entries(request).await }
        };
        let token = list("alice", String::new()).await.unwrap().into_inner().next_page_token;
        let last = list("alice", token.clone()).await.unwrap().into_inner();
        assert_eq!((last.entries.len(), last.entries[0].number, last.next_page_token.as_str()), (1, 1, ""));
        assert_eq!(reason(&list("bob", token).await.unwrap_err()), "PAGE_TOKEN_INVALID");
    });
}

#[test]
fn balance_has_a_maximum() {
    service_test(|s| async move {
        s.cashier().add_credits("alice", 1).await.unwrap();
        let almost = 1_000_000_000_000_000_i64 - 5;
        // The sum of the entries must match, so the entry is raised too.
        for (table, column) in [("credit_balances", "balance"), ("credit_entries", "amount")] {
            s.superuser.execute(&format!("UPDATE {table} SET {column} = {almost}")).await;
        }
        s.superuser.execute("UPDATE credit_entries SET balance_after = amount").await;
        let error = s.cashier().add_credits("alice", 6).await.unwrap_err();
        assert_eq!(violated_fields(&error), ["amount"]);
        let entry = s.cashier().add_credits("alice", 5).await.unwrap();
        assert_eq!(entry.balance_after, almost + 5);
    });
}

#[test]
fn fsck_finds_a_balance_without_its_entries() {
    service_test(|s| async move {
        s.cashier().add_credits("alice", 5).await.unwrap();
        s.cashier().deduct_credits("alice", 2).await.unwrap();
        assert!(s.run_fsck().await.violations.is_empty());
        for (damage, repair) in [
            ("UPDATE credit_balances SET balance = 4", "UPDATE credit_balances SET balance = 3"),
            ("UPDATE credit_balances SET entry_count = 3", "UPDATE credit_balances SET entry_count = 2"),
            (
                "UPDATE credit_entries SET balance_after = 4 WHERE number = 1",
                "UPDATE credit_entries SET balance_after = 5 WHERE number = 1",
            ),
        ] {
            s.superuser.execute(damage).await;
            let violations = s.run_fsck().await.violations;
            let found: Vec<(&str, &str)> = violations
                .iter()
                .map(|violation| (violation.invariant.as_str(), violation.subject.as_str()))
                .collect();
            assert_eq!(found, [("credits", "user alice")], "{damage}");
            s.superuser.execute(repair).await;
        }
    });
}

#[test]
fn export_contains_the_ledger_and_erasure_removes_it() {
    service_test(|s| async move {
        let (acme, operator) = (s.ada().tenant_id().await, s.operator());
        for user in ["bob", "alice", "bob"] {
            s.cashier().add_credits(user, 5).await.unwrap();
        }
        let records = operator.export_tenant(&acme).await.unwrap();
        let exported: Vec<(String, i64)> = records
            .into_iter()
            .filter_map(|record| match record {
                Record::CreditEntry(entry) => Some((entry.user_id, entry.number)),
                _ => None,
            })
            .collect();
        let expected = [("alice", 1), ("bob", 1), ("bob", 2)];
        assert_eq!(exported, expected.map(|(user, number)| (user.to_owned(), number)));
        operator.delete_tenant(&acme, false).await.unwrap();
        s.clock.advance(chrono::Duration::seconds(15));
        erase_all_tenants(&s).await;
        let rows = "SELECT (SELECT count(*) FROM credit_entries) + (SELECT count(*) FROM credit_balances)";
        assert_eq!(s.superuser.query_number(rows).await, 0);
    });
}
