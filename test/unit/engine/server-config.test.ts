// The server's configuration: what it takes, shows and applies (lxd-engine-contract section 3.5).
import { describe, expect, it } from 'vitest';
import { openDatabase } from '#src/engine/db/database.ts';
import { createEvents } from '#src/engine/events/events.ts';
import { ServerConfig } from '#src/engine/server/server-config.ts';

const make = (environment?: ConstructorParameters<typeof ServerConfig>[1]) =>
  new ServerConfig({ database: openDatabase(':memory:'), events: createEvents() }, environment);

describe('values', () => {
  it('are refused in the words of LXD, the first of all that are wrong', async () => {
    const config = make();

    await expect(config.update({ nope: 'x' })).rejects.toThrow("cannot set 'nope' to 'x': unknown key");
    await expect(config.update({ 'core.shutdown_timeout': 'abc' })).rejects.toThrow(
      "cannot set 'core.shutdown_timeout' to 'abc': invalid integer",
    );
    await expect(config.update({ 'core.metrics_authentication': 'perhaps' })).rejects.toThrow('invalid boolean');
    await expect(config.update({ nope: 'x', 'core.shutdown_timeout': 'y', 'user.a': 'b' })).rejects.toThrow(
      "cannot set 'core.shutdown_timeout' to 'y': invalid integer (and 1 more errors)",
    );
    for (const key of [
      'candid.api.url',
      'rbac.api.url',
      'maas.api.url',
      'cluster.https_address',
      'core.debug_address',
    ]) {
      await expect(config.update({ [key]: 'x' })).rejects.toThrow('unknown key');
    }
    expect(config.view()).toEqual({});
  });

  it.each([
    ['core.https_address', 'no.such.host.invalid:1'],
    ['core.https_address', '127.0.0.1:99999'],
    ['core.https_trusted_proxy', '10.0.0.1,proxy'],
    ['core.proxy_http', 'ftp://x'],
    ['core.remote_token_expiry', 'soon'],
    ['core.shutdown_timeout', '-1'],
  ])('%s is not "%s"', async (key, value) => {
    await expect(make().update({ [key]: value })).rejects.toMatchObject({ kind: 'invalid' });
  });

  it('are shown as they were set, defaults not at all, secrets as set', async () => {
    const config = make();

    await config.update({
      'core.https_address': '::',
      'core.shutdown_timeout': 5,
      'core.trust_ca_certificates': 'yes',
      'core.trust_password': 'secret',
      'user.a': 'b',
    });

    expect(config.view()).toEqual({
      'core.https_address': '::',
      'core.trust_ca_certificates': 'true',
      'core.trust_password': true,
      'user.a': 'b',
    });
    expect(config.number('core.shutdown_timeout')).toBe(5);
    expect(config.flag('core.metrics_authentication')).toBe(true);
  });

  it('that only say that a secret is set neither change nor make one', async () => {
    const config = make();

    await config.update({ 'core.trust_password': true });
    const before = config.view();
    await config.update({ 'core.trust_password': 'secret' });
    await config.update(config.view(), { replace: true });

    expect(before).toEqual({});
    expect([await config.isTrustPassword('true'), await config.isTrustPassword('secret')]).toEqual([false, true]);
  });

  it('are applied all or none', async () => {
    const config = make();
    const applied: string[] = [];
    config.onChange('core.https_address', (value) => void applied.push(value));
    config.onChange('core.metrics_address', () => {
      throw new Error('in use');
    });

    const change = { 'core.https_address': '127.0.0.1:1', 'core.metrics_address': '127.0.0.1:2' };
    await expect(config.update(change)).rejects.toThrow('in use');

    expect(applied).toEqual(['127.0.0.1:1', '']);
    expect(config.view()).toEqual({});
  });

  it('of two changes at once both hold', async () => {
    const config = make();

    await Promise.all([config.update({ 'core.trust_password': 'x' }), config.update({ 'user.a': 'b' })]);

    expect(config.view()).toEqual({ 'core.trust_password': true, 'user.a': 'b' });
  });
});

describe('the proxy of downloads', () => {
  const proxy = (config: ServerConfig, url: string) => config.proxyFor(new URL(url))?.href;

  it('is the configured one, else that of the environment', async () => {
    const config = make({ http: 'http://env:1', https: '', ignore: '' });

    const before = proxy(config, 'http://images.example.com/x');
    await config.update({ 'core.proxy_http': 'squid:3128', 'core.proxy_https': 'http://tls:3129' });

    expect(before).toBe('http://env:1/');
    expect(proxy(config, 'http://images.example.com/x')).toBe('http://squid:3128/');
    expect(proxy(config, 'https://images.example.com/x')).toBe('http://tls:3129/');
  });

  it('is passed by for hosts that are to be ignored, and for this one', async () => {
    const config = make();
    await config.update({
      'core.proxy_http': 'http://squid:3128',
      'core.proxy_ignore_hosts': 'internal,.corp.example, 10.0.0.1',
    });

    for (const host of ['internal', 'a.corp.example', '10.0.0.1', 'localhost', '127.0.0.1', '[::1]']) {
      expect({ host, proxy: proxy(config, `http://${host}/`) }).toEqual({ host, proxy: undefined });
    }
    for (const host of ['notinternal', 'corp.example.org', '10.0.0.12']) {
      expect({ host, proxy: proxy(config, `http://${host}/`) }).toEqual({ host, proxy: 'http://squid:3128/' });
    }
  });
});
