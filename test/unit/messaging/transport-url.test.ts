import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseTransportUrl } from '#src/messaging/transport-url.ts';

const guest = { host: 'localhost', port: 5672, username: 'guest', password: 'guest' };

describe('transport_url', () => {
  it.each(['', 'rabbit://', 'rabbit:///'])('%j is the local broker as guest', (url) => {
    expect(parseTransportUrl(url)).toEqual({
      brokers: [guest],
      virtualHost: '/',
      overrides: {},
      mixedCredentials: false,
    });
  });

  it('takes hosts, credentials, IPv6, virtual host and options apart', () => {
    const url =
      'rabbit://nova:p%40ss%3A%2F@one:5673,nova:x:y@[fd00::1]:5671,three/nova%2Fcell1?ssl=true&heartbeat_rate=4';
    expect(parseTransportUrl(url)).toEqual({
      brokers: [
        { host: 'one', port: 5673, username: 'nova', password: 'p@ss:/' },
        { host: 'fd00::1', port: 5671, username: 'nova', password: 'x:y' },
        { host: 'three', port: 5672, username: '', password: '' },
      ],
      virtualHost: 'nova/cell1',
      overrides: { ssl: 'true', heartbeat_rate: '4' },
      mixedCredentials: true,
    });
  });

  it('splits credentials from the host at the last @', () => {
    expect(parseTransportUrl('rabbit://a@b:c@host/').brokers[0]).toMatchObject({ username: 'a@b', password: 'c' });
  });

  it.each([
    ['rabbit://u:p@h:5672//', '/'],
    ['rabbit://u:p@h:5672/nova', 'nova'],
    ['rabbit://u:p@h', '/'],
    ['rabbit://u:p@h/%2F', '/'],
  ])('%s has virtual host %s', (url, virtualHost) => {
    expect(parseTransportUrl(url).virtualHost).toBe(virtualHost);
  });

  it('joins repeated options with a comma', () => {
    expect(parseTransportUrl('rabbit://h/?a=1&a=2').overrides).toEqual({ a: '1,2' });
  });

  it.each(['kombu+memory://', 'amqp://h/', 'fake:///', 'h:5672'])('refuses %s', (url) => {
    expect(() => parseTransportUrl(url)).toThrow(/transport_url/);
  });

  it.each(['rabbit://u:secret@h:99999/', 'rabbit://u:secret@h:x/', 'rabbit://u:secret@[::1/', 'zmq://u:secret@h/'])(
    'never shows a password when it refuses %s',
    (url) => {
      expect(() => parseTransportUrl(url)).toThrow(/^(?!.*secret).*$/);
    },
  );

  it('decodes whatever Python quotes', () => {
    const text = fc.string({ unit: 'grapheme', minLength: 1 });
    fc.assert(
      fc.property(text, text, (username, password) => {
        const url = `rabbit://${encodeURIComponent(username)}:${encodeURIComponent(password)}@h/`;
        expect(parseTransportUrl(url).brokers[0]).toMatchObject({ username, password });
      }),
    );
  });
});
