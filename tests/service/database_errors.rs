//! Errors of the database are recognized by their SQLSTATE, whatever the language of their messages.

use tonic::{Code, Status};

use crate::harness::{Service, file_id, reason, service_test, spec};

/// Makes every change of a file fail with this error.
pub(crate) async fn fail_changes(s: &Service, sqlstate: &str, message: &str) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION public.fail_change() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}', MESSAGE = '{message}'; END
         $$;
         CREATE OR REPLACE TRIGGER fail_change BEFORE INSERT OR UPDATE ON files
             FOR EACH STATEMENT EXECUTE FUNCTION public.fail_change()"
    );
    s.superuser.execute(&sql).await;
}

pub(crate) async fn permit_changes(s: &Service) {
    s.superuser.execute("DROP TRIGGER fail_change ON files").await;
}

fn code_and_reason(error: &Status) -> (Code, String) {
    (error.code(), reason(error))
}

#[test]
fn errors_in_another_language_are_recognized() {
    service_test(|s| async move {
        let alice = s.alice();
        let file = file_id(&alice.upload(spec("a"), b"a").await.unwrap());
        for (sqlstate, message, code, expected) in [
            ("53100", "kein Speicherplatz mehr verfügbar", Code::ResourceExhausted, "STORAGE_FULL"),
            ("25006", "Transaktion kann nur lesen", Code::Unavailable, "DATABASE_UNAVAILABLE"),
            ("57P01", "Verbindung wird abgebrochen", Code::Unavailable, "DATABASE_UNAVAILABLE"),
            ("57P03", "das Datenbanksystem fährt herunter", Code::Unavailable, "DATABASE_UNAVAILABLE"),
            ("08006", "Verbindungsfehler", Code::Unavailable, "DATABASE_UNAVAILABLE"),
            ("57014", "Anweisung wird abgebrochen", Code::Unavailable, "DATABASE_UNAVAILABLE"),
        ] {
            fail_changes(&s, sqlstate, message).await;
            let error = alice.rename(&file, "b").await.unwrap_err();
            assert_eq!(code_and_reason(&error), (code, expected.to_owned()), "{sqlstate}: {error:?}");
            assert_eq!(alice.read(&file).await.unwrap(), b"a"[..], "{sqlstate}: reads are served");
        }
        permit_changes(&s).await;
        alice.rename(&file, "b").await.unwrap();
    });
}

#[test]
fn full_disk_in_another_language_fails_upload() {
    service_test(|s| async move {
        let alice = s.alice();
        let file = file_id(&alice.upload(spec("a"), b"a").await.unwrap());
        fail_changes(&s, "53100", "kein Speicherplatz mehr verfügbar").await;
        let error = alice.upload(spec("b"), b"b").await.unwrap_err();
        assert_eq!(
            code_and_reason(&error),
            (Code::ResourceExhausted, "STORAGE_FULL".to_owned()),
            "{error:?}"
        );
        assert_eq!(alice.read(&file).await.unwrap(), b"a"[..]);
        permit_changes(&s).await;
        alice.upload(spec("b"), b"b").await.unwrap();
    });
}
