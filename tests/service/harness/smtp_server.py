"""An SMTP server for tests. Prints its port, and then each accepted message, as JSON, one per line."""

import argparse
import asyncio
import json
import ssl

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    def __init__(self, arguments):
        self.refusals = arguments.refuse
        self.hangs = arguments.hang

    async def handle_DATA(self, server, session, envelope):
        if self.hangs:
            await asyncio.Event().wait()
        if self.refusals > 0:
            self.refusals -= 1
            return "451 try again later"
        message = {
            "to": envelope.rcpt_tos,
            "from": envelope.mail_from,
            "text": envelope.content.decode(),
            "is_encrypted": session.ssl is not None,
            "user": session.auth_data.login.decode() if session.auth_data else "",
        }
        print(json.dumps(message), flush=True)
        return "250 accepted"


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--certificate", default="")
    parser.add_argument("--key", default="")
    parser.add_argument("--user", default="")
    parser.add_argument("--password", default="")
    parser.add_argument("--refuse", type=int, default=0, help="the number of messages to refuse first")
    parser.add_argument("--hang", action="store_true", help="never respond to a message")
    arguments = parser.parse_args()
    context = None
    if arguments.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(arguments.certificate, arguments.key)

    def authenticate(server, session, envelope, mechanism, data):
        is_known = (data.login, data.password) == (arguments.user.encode(), arguments.password.encode())
        return AuthResult(success=is_known, handled=False, auth_data=data)

    handler = Handler(arguments)

    def create():
        return SMTP(
            handler,
            hostname="localhost",
            tls_context=context,
            require_starttls=context is not None,
            authenticator=authenticate,
            auth_required=bool(arguments.user),
            auth_require_tls=context is not None,
        )

    server = await asyncio.get_running_loop().create_server(create, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


asyncio.run(main())
