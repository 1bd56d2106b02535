"""umqtt.robust's class on top of mqttpipe, for programs that exist: a drop-in.

    umqtt/robust.py and umqtt/simple.py of this folder in the place of micropython-lib's.

The calls are those of micropython-lib's umqtt.robust 1.0.3. Once connect() or reconnect() has
succeeded, none of them raises for the network's sake, and none but wait_msg() takes longer than
TIMEOUT_MS. What could not be published within that stays in the queue, and is sent by one of the
next calls; when 32 messages wait the oldest that was never sent makes room. The queue outlives
disconnect() and connect(), but not a change between the two of clean_session, or of what else
simple.py makes a new client for.

As in umqtt.robust, a connect() of a subclass (which publishes that it is online, or subscribes)
is called after each reconnection. delay() is not called: the pauses between attempts are
mqttpipe's, random and growing.
"""

from time import sleep_ms, ticks_add, ticks_diff, ticks_ms

from . import simple


class MQTTClient(simple.MQTTClient):
    DELAY = 2
    DEBUG = False
    _offline = "drop_oldest"
    _was_lost = False  # and connect() of a subclass was not called since
    _is_connecting = False
    _is_again = False  # connect() of a subclass runs once more

    def delay(self, i):
        """Not called any more."""

    def log(self, in_reconnect, e):
        if self.DEBUG:
            print("mqtt reconnect: %r" % e if in_reconnect else "mqtt: %r" % e)

    def connect(self, clean_session=True, timeout=None):
        self._was_lost = False
        self._is_connecting = True
        try:
            session_present = super().connect(clean_session, timeout)
        finally:
            self._is_connecting = False
        self._goes_on = True
        return session_present

    def reconnect(self):
        """Connect if nobody did, and wait for the connection, for TIMEOUT_MS at most.

        Returns what connect() does, or None: there is none; the next calls go on trying.
        Raises: MQTTException, as connect(), if that has not succeeded before.
        """
        end_ms = ticks_add(ticks_ms(), self.TIMEOUT_MS)
        self._goes_on = True
        left_ms = self.TIMEOUT_MS
        while left_ms > 0:
            client = self._client
            # Nobody did, that has failed, or disconnect(): it takes the settings as they are now.
            if client is None or client.state_name == "DOWN" or client.is_online():
                try:
                    self._is_again = True
                    return self.connect(False)
                except OSError as e:  # nobody is there, or lost again
                    self.log(True, e)
                finally:
                    self._is_again = False
            left_ms = ticks_diff(end_ms, ticks_ms())
            client = self._client
            if client is None or client.state_name == "DOWN" or client.is_online():
                # What a subclass's connect() does before, or behind, ours has failed.
                sleep_ms(max(0, min(left_ms, simple._SLEEP_MS)))
            else:
                self._wait(client.is_online, left_ms, False)
        return None

    def _on_offline(self, client, error):
        super()._on_offline(client, error)
        if error is not None and not self._is_connecting:
            self.log(self._was_lost, error)
            self._was_lost = True

    # After step(), never in it.
    def _step(self, timeout_ms):
        super()._step(timeout_ms)
        if self._was_lost and self._client.is_online():
            self.reconnect()

    def _on_unsent(self, token):
        """It stays queued."""

    def _on_unanswered(self):
        """It is asked for again after each reconnection."""

    def publish(self, topic, msg, retain=False, qos=0):
        if self._was_lost and self._client.is_online():
            self.reconnect()
        super().publish(topic, msg, retain, qos)

    def subscribe(self, topic, qos=0):
        # What stood has been made again: twice would bring each retained message twice.
        if not self._is_again or self._filters.get(simple._to_bytes(topic)) != qos:
            super().subscribe(topic, qos)

    def check_msg(self, attempts=2):
        return super().check_msg()
