// Saves through the conductor: what goes with what, and what the object looks like afterwards.
import { describe, expect, it } from 'vitest';
import type { RpcClient, RpcRequest } from '#src/messaging/types.ts';
import { createConductor } from '#src/nova/conductor.ts';
import { RequestContext } from '#src/nova/context.ts';
import { type NovaObject, createObject, expectObject, fromPrimitive } from '#src/nova/objects/object.ts';

const context = RequestContext.admin();

function conductorAnswering(answer: (request: RpcRequest) => unknown) {
  const sent: any[] = [];
  const rpc: RpcClient = {
    async call(request) {
      sent.push(request.args);
      return answer(request);
    },
    async cast() {
      throw new Error('a conductor is called');
    },
  };
  return { conductor: createConductor(rpc), sent };
}

const nothing = () => [{ obj_what_changed: [] }, null];

function instanceWith(fields: Parameters<typeof createObject<'Instance'>>[1]): NovaObject<'Instance'> {
  const instance = createObject('Instance', { id: 7, uuid: 'u', vm_state: 'active', user_data: 'big', ...fields });
  instance.resetChanges();
  return instance;
}

const flavor = (id: number) => createObject('Flavor', { id, name: `f${id}` });

describe('save', () => {
  it('sends identity and changes only', async () => {
    const { conductor, sent } = conductorAnswering(nothing);
    const instance = instanceWith({ system_metadata: { a: '1', b: null } });

    await conductor.save(context, instance.set('task_state', null).set('system_metadata', { a: '2', b: null }), {
      expectedTaskState: 'powering-on',
    });

    expect(sent).toEqual([
      {
        objinst: {
          'nova_object.name': 'Instance',
          'nova_object.namespace': 'nova',
          'nova_object.version': '2.7',
          'nova_object.data': { id: 7, uuid: 'u', task_state: null, system_metadata: { a: '2', b: null } },
          'nova_object.changes': ['task_state', 'system_metadata'],
        },
        objmethod: 'save',
        args: [],
        kwargs: { expected_task_state: 'powering-on' },
      },
    ]);
  });

  it('says "no task" with a list, for null alone would be no check', async () => {
    const { conductor, sent } = conductorAnswering(nothing);

    await conductor.save(context, instanceWith({}).set('progress', 1), { expectedTaskState: null });
    await conductor.save(context, instanceWith({}).set('progress', 1), {
      expectedTaskState: ['deleting', null],
      expectedVmState: 'active',
      adminStateReset: true,
    });
    await conductor.save(context, instanceWith({}).set('progress', 1));

    expect(sent.map(({ kwargs }) => kwargs)).toEqual([
      { expected_task_state: [null] },
      { expected_task_state: ['deleting', null], expected_vm_state: 'active', admin_state_reset: true },
      {},
    ]);
  });

  it('sends all three flavors when one of them changed', async () => {
    const { conductor, sent } = conductorAnswering(nothing);
    const instance = instanceWith({ flavor: flavor(1), old_flavor: null, new_flavor: null });

    await conductor.save(context, instance.set('new_flavor', flavor(2)));

    const { 'nova_object.data': data, 'nova_object.changes': changes } = sent[0].objinst;
    expect(Object.keys(data)).toEqual(['id', 'uuid', 'flavor', 'old_flavor', 'new_flavor']);
    expect(changes).toEqual(['new_flavor']);
  });

  it('reads the flavors that it must send and does not have, without touching the changed one', async () => {
    const stored = createObject('Instance', { uuid: 'u', flavor: flavor(1), old_flavor: flavor(9), new_flavor: null });
    const { conductor, sent } = conductorAnswering(({ method }) =>
      method === 'object_action' ? nothing() : stored.toPrimitive(),
    );
    const instance = instanceWith({});

    await conductor.save(context, instance.set('old_flavor', null));

    expect(sent[0]).toMatchObject({ objmethod: 'get_by_uuid', kwargs: { uuid: 'u', expected_attrs: ['flavor'] } });
    const data = sent[1].objinst['nova_object.data'];
    expect(data).toMatchObject({ old_flavor: null, new_flavor: null });
    expect(data.flavor['nova_object.data'].id).toBe(1);
    expect(sent[1].objinst['nova_object.changes']).toEqual(['old_flavor']);
    expect(instance.changes()).toEqual([]);
  });

  it('leaves out what no save of an instance writes', async () => {
    const { conductor, sent } = conductorAnswering(nothing);
    const instance = instanceWith({}).set('tags', createObject('TagList', { objects: [] }));

    await conductor.save(context, instance);
    expect(sent).toEqual([]);

    await conductor.save(context, instance.set('progress', 5));
    expect(sent[0].objinst['nova_object.changes']).toEqual(['progress']);
  });

  it('sends everything of a class without a rule of its own', async () => {
    const { conductor, sent } = conductorAnswering(nothing);
    const usage = createObject('VolumeUsage', { volume_id: 'v', curr_reads: 1, curr_writes: 2 });
    usage.resetChanges();

    await conductor.save(context, usage.set('curr_reads', 3));

    expect(sent[0].objinst['nova_object.data']).toEqual({ volume_id: 'v', curr_reads: 3, curr_writes: 2 });
  });

  it('takes over the updates, and what was set meanwhile stays a change', async () => {
    const instance = instanceWith({ host: 'a', info_cache: createObject('InstanceInfoCache', { instance_uuid: 'u' }) });
    const { conductor } = conductorAnswering(() => {
      instance.set('host', 'mine').set('progress', 50);
      return [{ host: 'theirs', node: 'n', updated_at: '2026-01-01T00:00:00Z', obj_what_changed: ['node'] }, null];
    });

    await conductor.save(context, instance.set('progress', 10));

    expect(instance.get('node')).toBe('n');
    expect(instance.get('updated_at')).toEqual(new Date('2026-01-01T00:00:00Z'));
    expect(instance.get('host')).toBe('mine');
    expect(instance.changes().toSorted()).toEqual(['host', 'progress']);
  });

  it('that fails leaves the changes to be saved again', async () => {
    const { conductor } = conductorAnswering(() => {
      throw new Error('no reply');
    });
    const instance = instanceWith({}).set('progress', 10);

    await expect(conductor.save(context, instance)).rejects.toThrow('no reply');

    expect(instance.changes()).toEqual(['progress']);
  });

  it('rejects an answer that is none', async () => {
    const { conductor } = conductorAnswering(() => null);

    await expect(conductor.save(context, instanceWith({}).set('progress', 1))).rejects.toThrow(
      "Instance.save: the conductor's answer has no updates",
    );
  });
});

describe('objectMethod', () => {
  it('sends every set field and returns the decoded result', async () => {
    const { conductor, sent } = conductorAnswering(() => [{ token: 't', id: 3, obj_what_changed: [] }, 't']);
    const token = createObject('ConsoleAuthToken', { console_type: 'serial', port: 5, tls_port: null });

    const result = await conductor.objectMethod(context, token, { method: 'authorize', args: [600] });

    expect(result).toBe('t');
    expect(token.get('token')).toBe('t');
    expect(token.changes()).toEqual([]);
    expect(sent[0]).toMatchObject({
      objmethod: 'authorize',
      args: [600],
      objinst: {
        'nova_object.version': '1.1',
        'nova_object.data': { console_type: 'serial', port: 5, tls_port: null },
      },
    });
  });
});

describe('classMethod', () => {
  it('encodes objects and dates among the arguments and decodes the result', async () => {
    const list = createObject('TagList', { objects: [createObject('Tag', { tag: 'a' })] });
    const { conductor, sent } = conductorAnswering(() => list.toPrimitive());
    const newer = { ...instanceWith({}).toPrimitive(), 'nova_object.version': '2.8' };

    const result = await conductor.classMethod(context, {
      object: 'TagList',
      method: 'get',
      args: [fromPrimitive(newer)],
      kwargs: { begin: new Date('2026-01-01T00:00:00Z') },
    });

    expect(sent[0].args[0]['nova_object.version']).toBe('2.7');
    expect(sent[0].kwargs).toEqual({ begin: '2026-01-01T00:00:00.000000' });
    expect(sent[0].object_versions).toEqual({ TagList: '1.1', Tag: '1.1' });
    expect(expectObject(result, 'TagList').get('objects')[0]?.get('tag')).toBe('a');
  });
});
