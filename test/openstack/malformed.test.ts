// Messages that mean nothing, to the queue of a compute that serves a real Nova: it goes on as if nothing had been.
import amqp from 'amqplib';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bomb, malformed, type Malformed, randomNumbers } from '../contract/messaging/malformed.ts';
import { residentMib } from '../bench/stats.ts';
import { sql } from './lab/infrastructure.ts';
import { expectNothingLeft, type Residue, takeResidue } from './lab/residue.ts';
import { COMPUTE_HOST, PORTS } from './lab/settings.ts';
import { activeServer, cloud, deleteServer, paths, processes } from './lab/suite.ts';

const COUNT = 2000;
/** Of each run its own: a compute forgets no id that soon. */
const RUN = Date.now().toString(36);
let before: Residue;

beforeAll(async () => {
  before = await takeResidue(cloud, paths);
});
afterAll(async () => {
  await expectNothingLeft(before, 60_000);
});

/** What Nova would have of an operation that was begun. */
async function rows(): Promise<string> {
  const counts = ['instances', 'instance_faults', 'instance_actions_events', 'migrations'];
  const selects = counts.map((table) => `(SELECT COUNT(*) FROM nova.${table})`);
  return await sql(paths, `SELECT ${selects.join(', ')}`);
}

it('2,000 malformed messages are answered with failures, and nothing else comes of them', async () => {
  const pid = processes.pid('nova-compute-lxd') ?? 0;
  const server = await activeServer({ name: 'bystander' });
  const [rowsBefore, residentBefore] = [await rows(), residentMib(pid)];
  const connection = await amqp.connect(`amqp://guest:guest@127.0.0.1:${PORTS.rabbitmq}/`);
  const channel = await connection.createConfirmChannel();
  const { queue: replies } = await channel.assertQueue('', { exclusive: true });
  const answers: { readonly failure: unknown; readonly _msg_id: string }[] = [];
  await channel.consume(
    replies,
    (message) => {
      if (!message) return;
      const { 'oslo.message': inner } = JSON.parse(message.content.toString()) as { 'oslo.message': string };
      const answer = JSON.parse(inner) as (typeof answers)[number] & { ending: boolean };
      if (answer.ending) answers.push(answer);
    },
    { noAck: true },
  );
  const send = ({ content, options }: Malformed): void => {
    const properties = { contentType: 'application/json', contentEncoding: 'utf-8', ...options };
    channel.publish('nova', `compute.${COMPUTE_HOST}`, content, properties);
  };
  const random = randomNumbers(42);

  let expected = 0;
  for (let index = 0; index < COUNT; index += 1) {
    const made = malformed(index, random, { replies, run: RUN });
    if (made.isAnswered) expected += 1;
    send(made);
  }
  send(bomb());
  await channel.waitForConfirms();
  await expect.poll(() => answers.length, { timeout: 60_000 }).toBe(expected);
  await connection.close();

  expect(answers.filter(({ failure }) => failure === null)).toEqual([]);
  expect(processes.pid('nova-compute-lxd')).toBe(pid);
  expect(await rows()).toBe(rowsBefore);
  expect(await cloud.server(server.id)).toMatchObject({ status: 'ACTIVE', 'OS-EXT-STS:task_state': null });
  console.log(`memory of the compute ${Math.round(residentBefore)} MiB before, ${Math.round(residentMib(pid))} after`);
  const second = await activeServer({ name: 'after-malformed', network: 'none' });
  await Promise.all([deleteServer(server.id), deleteServer(second.id)]);
});
