// What a forward may say.
import { expect, it } from 'vitest';
import { checkForward, type WantedPort } from '#src/engine/networks/check-forward.ts';

const NETWORK = { 'ipv4.address': '10.1.0.1/24' };
const port = (targetAddress: string): WantedPort => {
  return { protocol: 'tcp', listenPort: '80', targetPort: '', targetAddress, description: '' };
};
const check = (config: Record<string, string>, ...ports: readonly WantedPort[]) =>
  checkForward(NETWORK, { listenAddress: '192.0.2.1', description: '', config, ports });

it('sends a port elsewhere than where all others go', () => {
  const config = { target_address: '10.1.0.2' };

  expect(check(config, port('10.1.0.3')).ports).toMatchObject([{ targetAddress: '10.1.0.3' }]);
  expect(check({}, port('10.1.0.2')).ports).toHaveLength(1);
  expect(() => check(config, port('10.1.0.2'))).toThrow(
    'Target address is same as default target address in port specification 0',
  );
});
