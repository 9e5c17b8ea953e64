-- Revokes the shares that were created under a grant when the grant is deleted, and narrows them when it is narrowed. A
-- caller who is neither owner nor admin shares a file under a grant.
--
-- A share that limits its downloads cannot become one for views, which are not limited, so it is revoked. A new
-- permission ends the grants of visitors, which are counted for the old one.
CREATE OR REPLACE FUNCTION app.limit_shares_to_source() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE public.shares AS s
        SET revoke_time = app.now(), secret_revision = s.secret_revision + 1, revision = s.revision + 1,
            update_time = app.now()
        WHERE s.tenant_id = OLD.tenant_id AND s.file_id = OLD.file_id AND s.source_grant_id = OLD.id
          AND s.revoke_time IS NULL;
        RETURN OLD;
    END IF;
    UPDATE public.shares AS s
    SET permission = least(s.permission, NEW.permission), expire_time = least(s.expire_time, NEW.expire_time),
        revoke_time = CASE WHEN NEW.permission = {permission.view} AND s.max_downloads IS NOT NULL THEN app.now() END,
        secret_revision = s.secret_revision + (s.permission > NEW.permission)::integer,
        revision = s.revision + 1, update_time = app.now()
    WHERE s.tenant_id = NEW.tenant_id AND s.file_id = NEW.file_id AND s.source_grant_id = NEW.id
      AND s.revoke_time IS NULL
      AND (s.permission > NEW.permission
           OR coalesce(s.expire_time, 'infinity') > coalesce(NEW.expire_time, 'infinity'));
    RETURN NEW;
END
$$;
