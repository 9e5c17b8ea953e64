-- Returns the time before which retention may have dropped events. All later events are stored, in whichever
-- partition. NULL if nothing was dropped.
CREATE OR REPLACE FUNCTION app.event_horizon() RETURNS timestamptz
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $$
BEGIN
    RETURN (SELECT h.horizon FROM app.retention_horizons AS h WHERE h.table_name = 'events');
END
$$;
