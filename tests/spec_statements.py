"""The conformance statements of MQTT 3.1.1, as data for tools/list_spec_coverage.py.

All of appendix B of MQTT Version 3.1.1, OASIS standard, 29 October 2014, in its order. Each row:

    number      x.y.z-n of the tag [MQTT-x.y.z-n]
    binds       CLIENT, SERVER or BOTH: who has to obey
    kept        how this client obeys. TAGS: the tag stands in the code that obeys and in a test
                that proves it. SERVERS: it binds only servers. Anything else is the reason
                why no line of code can obey or disobey: it is kept by construction.
    paraphrase  what it asks for, in our own words; the specification's words are what counts

Three numbers are misprinted in the standard: 3.1.2.7, 3-8.3-4 and, in one place of two, 3.3.1.-1.
Here they have the form of the others. Drafts number differently, as does MQTT 5.0, and so does
the test material made for either.
"""

CLIENT = "client"
SERVER = "server"
BOTH = "both"

TAGS = "code and test"
SERVERS = "not ours"
NO_WEBSOCKET = "no WebSocket is offered: parse_uri() knows no such scheme, and no code frames one"
NO_EXTENSION = "only the packets of section 3 are sent, and no more is asked of a server"

STATEMENTS = (
    # 1.5.3 UTF-8 encoded strings
    ("1.5.3-1", BOTH, TAGS, "strings are well-formed UTF-8, no surrogates; others close"),
    ("1.5.3-2", BOTH, TAGS, "no U+0000 in a string; who receives one closes the connection"),
    ("1.5.3-3", BOTH, TAGS, "EF BB BF is U+FEFF wherever it stands, and is never taken away"),
    # 2.2.2 flags, 2.3.1 packet identifier
    ("2.2.2-1", BOTH, TAGS, "reserved flags of the fixed header have the values of table 2.2"),
    ("2.2.2-2", BOTH, TAGS, "whoever receives other flags closes the connection"),
    ("2.3.1-1", BOTH, TAGS, "SUBSCRIBE, UNSUBSCRIBE, PUBLISH at QoS 1, 2: an identifier, not 0"),
    ("2.3.1-2", CLIENT, TAGS, "each new one of these gets an identifier that is not in use"),
    ("2.3.1-3", CLIENT, TAGS, "sent again: the same identifier, which is free once acknowledged"),
    ("2.3.1-4", SERVER, SERVERS, "a server's own PUBLISH packets obey the same rules"),
    ("2.3.1-5", BOTH, TAGS, "PUBLISH at QoS 0 carries no identifier"),
    ("2.3.1-6", BOTH, TAGS, "PUBACK, PUBREC, PUBREL carry the identifier of their PUBLISH"),
    ("2.3.1-7", SERVER, SERVERS, "SUBACK and UNSUBACK carry the identifier of the question"),
    # 3.1 CONNECT
    ("3.1.0-1", CLIENT, TAGS, "the first packet on a connection is CONNECT"),
    ("3.1.0-2", SERVER, SERVERS, "a second CONNECT is an offence and ends the connection"),
    ("3.1.2-1", SERVER, SERVERS, "another protocol name is not dealt with by these rules"),
    ("3.1.2-2", SERVER, SERVERS, "an unknown protocol level: return code 1, then close"),
    ("3.1.2-3", SERVER, SERVERS, "the reserved connect flag is looked at; if set, close"),
    ("3.1.2-4", BOTH, TAGS, "clean session 0: resume or begin a session; both ends keep it"),
    ("3.1.2-5", SERVER, SERVERS, "clean session 0: QoS 1, 2 for an absent client is stored"),
    ("3.1.2-6", BOTH, TAGS, "clean session 1: forget what was; nothing lives on in the next"),
    ("3.1.2-7", SERVER, SERVERS, "retained messages stay when a session ends"),
    ("3.1.2-8", SERVER, SERVERS, "a will is stored, and published unless DISCONNECT came"),
    ("3.1.2-9", CLIENT, TAGS, "will flag 1: the will's topic and message stand in the payload"),
    ("3.1.2-10", SERVER, SERVERS, "a will is forgotten once published, or at DISCONNECT"),
    ("3.1.2-11", CLIENT, TAGS, "will flag 0: will QoS and retain are 0, topic and message absent"),
    ("3.1.2-12", SERVER, SERVERS, "will flag 0: no will is published"),
    ("3.1.2-13", CLIENT, TAGS, "will flag 0: will QoS is 0"),
    ("3.1.2-14", CLIENT, TAGS, "will flag 1: will QoS is 0, 1 or 2, never 3"),
    ("3.1.2-15", CLIENT, TAGS, "will flag 0: will retain is 0"),
    ("3.1.2-16", SERVER, SERVERS, "will retain 0: the will is published, not retained"),
    ("3.1.2-17", SERVER, SERVERS, "will retain 1: the will is published and retained"),
    ("3.1.2-18", CLIENT, TAGS, "user name flag 0: no user name in the payload"),
    ("3.1.2-19", CLIENT, TAGS, "user name flag 1: a user name in the payload"),
    ("3.1.2-20", CLIENT, TAGS, "password flag 0: no password in the payload"),
    ("3.1.2-21", CLIENT, TAGS, "password flag 1: a password in the payload"),
    ("3.1.2-22", CLIENT, TAGS, "no password flag without user name flag"),
    ("3.1.2-23", CLIENT, TAGS, "no longer silence than the keep alive; else PINGREQ"),
    ("3.1.2-24", SERVER, SERVERS, "a client silent for 1.5 keep alives is disconnected"),
    ("3.1.3-1", CLIENT, TAGS, "payload in order: client id, will topic, will, user, password"),
    ("3.1.3-2", BOTH, TAGS, "the client id is what a session's state is known by"),
    ("3.1.3-3", CLIENT, TAGS, "the client id is there, and comes first"),
    ("3.1.3-4", CLIENT, TAGS, "the client id is a UTF-8 string"),
    ("3.1.3-5", SERVER, SERVERS, "client ids of 1..23 ASCII letters and digits are taken"),
    ("3.1.3-6", SERVER, SERVERS, "an empty client id, if taken, is made a unique one"),
    ("3.1.3-7", CLIENT, TAGS, "an empty client id only with clean session 1"),
    ("3.1.3-8", SERVER, SERVERS, "an empty one without it: return code 2, then close"),
    ("3.1.3-9", SERVER, SERVERS, "a client id not liked: return code 2, then close"),
    ("3.1.3-10", CLIENT, TAGS, "the will's topic is a UTF-8 string"),
    ("3.1.3-11", CLIENT, TAGS, "the user name is a UTF-8 string"),
    ("3.1.4-1", SERVER, SERVERS, "a CONNECT against section 3.1: close without CONNACK"),
    ("3.1.4-2", SERVER, SERVERS, "the older connection of the same client id is ended"),
    ("3.1.4-3", SERVER, SERVERS, "clean session is dealt with as in 3.1.2.4"),
    ("3.1.4-4", SERVER, SERVERS, "a good CONNECT is answered by CONNACK with code 0"),
    ("3.1.4-5", SERVER, SERVERS, "what follows a refused CONNECT is not looked at"),
    # 3.2 CONNACK
    ("3.2.0-1", SERVER, SERVERS, "the first packet to a client is CONNACK"),
    ("3.2.2-1", SERVER, SERVERS, "clean session 1, accepted: session present is 0"),
    ("3.2.2-2", SERVER, SERVERS, "clean session 0 and state stored: session present is 1"),
    ("3.2.2-3", SERVER, SERVERS, "no state stored: session present is 0"),
    ("3.2.2-4", SERVER, SERVERS, "refused: session present is 0"),
    ("3.2.2-5", SERVER, SERVERS, "refused: the connection is closed after CONNACK"),
    ("3.2.2-6", SERVER, SERVERS, "no return code fits: close without CONNACK"),
    # 3.3 PUBLISH
    ("3.3.1-1", BOTH, TAGS, "DUP is 1 when a PUBLISH is sent once more"),
    ("3.3.1-2", BOTH, TAGS, "DUP is 0 at QoS 0"),
    ("3.3.1-3", SERVER, SERVERS, "DUP is not passed on to subscribers"),
    ("3.3.1-4", BOTH, TAGS, "QoS is never 3; who receives that closes the connection"),
    ("3.3.1-5", SERVER, SERVERS, "RETAIN 1: message and QoS are kept for later subscribers"),
    ("3.3.1-6", SERVER, SERVERS, "a new subscription gets what was retained for it"),
    ("3.3.1-7", SERVER, SERVERS, "RETAIN at QoS 0 takes the place of what was retained"),
    ("3.3.1-8", SERVER, SERVERS, "RETAIN is 1 in what a new subscription brings"),
    ("3.3.1-9", SERVER, SERVERS, "RETAIN is 0 in what an old subscription brings"),
    ("3.3.1-10", SERVER, SERVERS, "RETAIN with no payload removes what was retained"),
    ("3.3.1-11", SERVER, SERVERS, "an empty message is not itself retained"),
    ("3.3.1-12", SERVER, SERVERS, "RETAIN 0: what is retained stays as it is"),
    ("3.3.2-1", BOTH, TAGS, "the topic name comes first, and is a UTF-8 string"),
    ("3.3.2-2", BOTH, TAGS, "no wildcard in the topic name of a PUBLISH"),
    ("3.3.2-3", SERVER, SERVERS, "the topic name sent matches the subscriber's filter"),
    ("3.3.4-1", BOTH, TAGS, "the answer to a PUBLISH is that of its QoS (table 3.4)"),
    ("3.3.5-1", SERVER, SERVERS, "overlapping subscriptions: delivered at the highest QoS"),
    ("3.3.5-2", SERVER, SERVERS, "a PUBLISH not allowed is acknowledged as usual, or close"),
    # 3.6 PUBREL
    ("3.6.1-1", BOTH, TAGS, "the flags of PUBREL are 0010; any other closes"),
    # 3.8 SUBSCRIBE, 3.9 SUBACK
    ("3.8.1-1", BOTH, TAGS, "the flags of SUBSCRIBE are 0010; any other closes"),
    ("3.8.3-1", CLIENT, TAGS, "the filters of SUBSCRIBE are UTF-8 strings"),
    ("3.8.3-2", SERVER, SERVERS, "who does not serve wildcards refuses filters with them"),
    ("3.8.3-3", CLIENT, TAGS, "SUBSCRIBE has at least one filter with its QoS"),
    ("3.8.3-4", SERVER, SERVERS, "reserved bits, or a QoS above 2, in SUBSCRIBE: close"),
    ("3.8.4-1", SERVER, SERVERS, "SUBSCRIBE is answered by SUBACK"),
    ("3.8.4-2", SERVER, SERVERS, "SUBACK has the identifier of its SUBSCRIBE"),
    ("3.8.4-3", SERVER, SERVERS, "the same filter again takes the old one's place"),
    ("3.8.4-4", SERVER, SERVERS, "several filters: as if one by one, with one SUBACK"),
    ("3.8.4-5", SERVER, SERVERS, "SUBACK has a code for each filter: QoS, or failure"),
    ("3.8.4-6", SERVER, SERVERS, "delivery is at the lower of published and granted QoS"),
    ("3.9.3-1", SERVER, SERVERS, "the codes of SUBACK come in the order of the filters"),
    ("3.9.3-2", SERVER, SERVERS, "no code in SUBACK but 0, 1, 2 and 0x80"),
    # 3.10 UNSUBSCRIBE
    ("3.10.1-1", BOTH, TAGS, "the flags of UNSUBSCRIBE are 0010; any other closes"),
    ("3.10.3-1", CLIENT, TAGS, "its filters are UTF-8 strings, one behind the other"),
    ("3.10.3-2", CLIENT, TAGS, "UNSUBSCRIBE has at least one filter"),
    ("3.10.4-1", SERVER, SERVERS, "a filter is taken back only if it is the same in each byte"),
    ("3.10.4-2", SERVER, SERVERS, "from then on nothing new is put up for it"),
    ("3.10.4-3", SERVER, SERVERS, "a delivery at QoS 1 or 2 that has begun is completed"),
    ("3.10.4-4", SERVER, SERVERS, "UNSUBACK with the identifier of the UNSUBSCRIBE"),
    ("3.10.4-5", SERVER, SERVERS, "UNSUBACK also when there was nothing to take back"),
    ("3.10.4-6", SERVER, SERVERS, "several filters: as if one by one, with one UNSUBACK"),
    # 3.12 PINGREQ, 3.14 DISCONNECT
    ("3.12.4-1", SERVER, SERVERS, "PINGREQ is answered by PINGRESP"),
    ("3.14.1-1", SERVER, SERVERS, "reserved bits in DISCONNECT are looked at; if set, close"),
    ("3.14.4-1", CLIENT, TAGS, "after DISCONNECT the client closes the connection"),
    ("3.14.4-2", CLIENT, TAGS, "after DISCONNECT the client sends nothing more on it"),
    ("3.14.4-3", SERVER, SERVERS, "at DISCONNECT the will is dropped unpublished"),
    # 4 operational behaviour
    ("4.1.0-1", BOTH, TAGS, "both ends store the session's state as long as it lasts"),
    ("4.1.0-2", BOTH, TAGS, "a session lasts at least as long as its connection"),
    ("4.3.1-1", BOTH, TAGS, "QoS 0: sent with QoS 0 and DUP 0"),
    ("4.3.2-1", BOTH, TAGS, "QoS 1, sender: new identifier, DUP 0, unacknowledged until PUBACK"),
    ("4.3.2-2", BOTH, TAGS, "QoS 1, receiver: PUBACK; after it the identifier means a new one"),
    ("4.3.3-1", BOTH, TAGS, "QoS 2, sender: PUBREL at PUBREC, until PUBCOMP; no PUBLISH after it"),
    ("4.3.3-2", BOTH, TAGS, "QoS 2, receiver: PUBREC, delivered once until PUBREL; then PUBCOMP"),
    ("4.4.0-1", BOTH, TAGS, "clean session 0: unacknowledged PUBLISH, PUBREL are sent once more"),
    ("4.5.0-1", SERVER, SERVERS, "a message goes to the sessions with a matching filter"),
    ("4.5.0-2", CLIENT, TAGS, "a PUBLISH is acknowledged whether or not anybody wants it"),
    ("4.6.0-1", CLIENT, TAGS, "PUBLISH packets sent once more keep their first order"),
    ("4.6.0-2", CLIENT, TAGS, "PUBACKs in the order of their PUBLISH packets"),
    ("4.6.0-3", CLIENT, TAGS, "PUBRECs in the order of their PUBLISH packets"),
    ("4.6.0-4", CLIENT, TAGS, "PUBRELs in the order of their PUBRECs"),
    ("4.6.0-5", SERVER, SERVERS, "each topic is an ordered one unless set otherwise"),
    ("4.6.0-6", SERVER, SERVERS, "on an ordered topic subscribers get the publisher's order"),
    ("4.7.1-1", BOTH, TAGS, "wildcards are for filters, never for topic names"),
    ("4.7.1-2", CLIENT, TAGS, "# is alone or behind a /, and the last character"),
    ("4.7.1-3", CLIENT, TAGS, "+ is alone in its level"),
    ("4.7.2-1", SERVER, SERVERS, "a wildcard in front does not match a $ in front"),
    ("4.7.3-1", BOTH, TAGS, "topic names and filters have at least one character"),
    ("4.7.3-2", BOTH, TAGS, "no U+0000 in topic names and filters"),
    ("4.7.3-3", BOTH, TAGS, "topic names and filters have at most 65,535 bytes"),
    ("4.7.3-4", SERVER, SERVERS, "matching changes and normalizes nothing"),
    ("4.8.0-1", BOTH, TAGS, "an offence against the protocol closes its connection"),
    ("4.8.0-2", BOTH, TAGS, "so does a passing failure while a packet is dealt with"),
    # 6 WebSocket
    ("6.0.0-1", BOTH, NO_WEBSOCKET, "packets go in binary frames; any other frame closes"),
    ("6.0.0-2", BOTH, NO_WEBSOCKET, "packets and frames need not begin or end together"),
    ("6.0.0-3", CLIENT, NO_WEBSOCKET, "the client offers the subprotocol mqtt"),
    ("6.0.0-4", SERVER, SERVERS, "the server chooses the subprotocol mqtt"),
    # 7 conformance
    ("7.0.0-1", SERVER, SERVERS, "a server that connects to servers is a client as well"),
    ("7.0.0-2", BOTH, NO_EXTENSION, "no need of anything that the specification does not have"),
    ("7.1.1-1", SERVER, SERVERS, "servers: a transport that keeps all bytes, in order"),
    ("7.1.2-1", CLIENT, TAGS, "clients: a transport that keeps all bytes, in order"),
)
