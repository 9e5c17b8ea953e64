-- Changes the alert level of a quota whose usage reached a threshold or fell below it, and raises an alert if the level
-- rises: a row, an event for admins, and a job that sends e-mails. It runs in the transaction that changed the usage or the limits, which has
-- locked the row, so each crossing raises one alert. See `docs/decisions/0013-alerts-by-level-crossing.md`.
--
-- The level falls only when the usage is two percentage points below the threshold, or half of a threshold that is
-- lower than four percent. A change that reaches both thresholds raises one alert, for the higher one.
CREATE OR REPLACE FUNCTION app.raise_quota_alert() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    alerts_kept_max constant bigint := 1000;
    -- in 24 hours
    emails_max constant bigint := 24;
    -- The lowest usage of each level, when it rises and when it falls. Division of integers, because quotients of
    -- type numeric are rounded.
    warning_begin constant bigint := div(NEW.limit_bytes::numeric * NEW.warning_percent + 99, 100);
    warning_end constant bigint :=
        div(NEW.limit_bytes::numeric * greatest(2 * NEW.warning_percent - 4, NEW.warning_percent) + 199, 200);
    critical_begin constant bigint := div(NEW.limit_bytes::numeric * NEW.critical_percent + 99, 100);
    critical_end constant bigint :=
        div(NEW.limit_bytes::numeric * greatest(2 * NEW.critical_percent - 4, NEW.critical_percent) + 199, 200);
    reached smallint := {alert_level.none};
    retained smallint := {alert_level.none};
    next_alert_level smallint;
    is_raised boolean;
    alert_number bigint;
    alert_id uuid;
BEGIN
    -- A limit of 0 has no thresholds.
    IF NEW.limit_bytes > 0 THEN
        reached := CASE
            WHEN NEW.used_bytes >= critical_begin THEN {alert_level.critical}
            WHEN NEW.used_bytes >= warning_begin THEN {alert_level.warning}
            ELSE {alert_level.none} END;
        retained := CASE
            WHEN NEW.used_bytes >= critical_end THEN {alert_level.critical}
            WHEN NEW.used_bytes >= warning_end THEN {alert_level.warning}
            ELSE {alert_level.none} END;
    END IF;
    next_alert_level := greatest(reached, least(OLD.alert_level, retained));
    is_raised := next_alert_level > OLD.alert_level;

    UPDATE public.quotas SET
        alert_level = next_alert_level,
        alert_above_bytes = CASE
            WHEN NEW.limit_bytes = 0 OR next_alert_level = {alert_level.critical} THEN 9223372036854775807
            WHEN next_alert_level = {alert_level.warning} THEN critical_begin
            ELSE warning_begin END,
        alert_below_bytes = CASE next_alert_level
            WHEN {alert_level.critical} THEN critical_end
            WHEN {alert_level.warning} THEN warning_end
            ELSE 0 END,
        alert_count = alert_count + is_raised::integer,
        last_warning_sent_time = CASE WHEN is_raised THEN app.now() ELSE last_warning_sent_time END
    WHERE tenant_id = NEW.tenant_id
    RETURNING alert_count INTO alert_number;
    IF NOT is_raised THEN
        RETURN NULL;
    END IF;

    -- A UUIDv7.
    alert_id := encode(set_bit(set_bit(overlay(
        uuid_send(gen_random_uuid()) PLACING substring(int8send((extract(epoch FROM app.now()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid;
    INSERT INTO public.quota_alerts (tenant_id, number, id, alert_level, threshold_percent, used_bytes, limit_bytes,
        create_time)
    VALUES (NEW.tenant_id, alert_number, alert_id, next_alert_level,
        CASE next_alert_level WHEN {alert_level.critical} THEN NEW.critical_percent ELSE NEW.warning_percent END,
        NEW.used_bytes, NEW.limit_bytes, app.now());
    DELETE FROM public.quota_alerts
    WHERE tenant_id = NEW.tenant_id AND number <= alert_number - alerts_kept_max;
    -- As `events::EventSubject::into_columns`. No caller has an empty id, so only admins see the event.
    INSERT INTO public.events (tenant_id, create_time, kind, file_id, version, revision, actor_id, owner_id, audience,
        readers)
    VALUES (NEW.tenant_id, app.now(), {event_kind.quota_alert}, alert_id, next_alert_level, 0, 'strongroom', '',
        {visibility.owner}, '{}');
    -- The row as JSON, because this function must also work while the column does not exist yet. As the variant
    -- `Job::SendQuotaAlert`. Alert numbers have no gaps, so one row shows how many alerts there were.
    IF jsonb_array_length(coalesce(to_jsonb(NEW) -> 'alert_emails', '[]')) > 0 AND NOT EXISTS (
        SELECT FROM public.quota_alerts AS a
        WHERE a.tenant_id = NEW.tenant_id AND a.number = alert_number - emails_max
          AND a.create_time > app.now() - interval '24 hours') THEN
        INSERT INTO public.jobs (tenant_id, id, payload, state, run_time, enqueue_time)
        VALUES (NEW.tenant_id, alert_id, jsonb_build_object('kind', 'send_quota_alert', 'number', alert_number),
            {job_state.ready}, app.now(), app.now());
    END IF;
    RETURN NULL;
END
$$;
